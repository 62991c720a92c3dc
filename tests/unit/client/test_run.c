/* SPDX-License-Identifier: Apache-2.0 */
/* Runs that are interrupted, runs that take their inputs, options of older callers. */
#include <pthread.h>
#include <string.h>

#include "tests/lib/check.h"
#include "tests/unit/client/fake.h"

static struct fake f;
static int asked, yes_at;

static int interrupted(void *arg)
{
	assert_ptr_equal(arg, &f);
	return ++asked >= yes_at;
}

static struct pt2box_run_options options(int at)
{
	struct pt2box_run_options o = PT2BOX_RUN_OPTIONS_INIT;

	asked = 0;
	yes_at = at;
	o.interrupted = interrupted;
	o.arg = &f;
	return o;
}

static struct pt2box_tensor *in_lane(void)
{
	struct pt2box_tensor *t;

	assert_int_equal(pt2box_tensor_alloc(f.m, PT2BOX_FLOAT32, 1, (int64_t[]){64}, &t, NULL), PT2BOX_OK);
	memset(t->info.data, 0, 256);
	return t;
}

static void *answer(void *status)
{
	while (!fake_claim(&f))
		usleep(1000);
	usleep(250000);
	fake_reply(&f, &(struct pb_lane_reply){.status = (uint32_t)(intptr_t)status});
	return NULL;
}

/* The worker answers late, with success or not: who interrupts gets CANCELLED. */
static void check_interrupted(uint32_t answered)
{
	struct pt2box_run_options o = options(2);
	struct pt2box_tensor *t;
	struct pt2box_error e;
	pthread_t worker;
	uint64_t began;

	fake_connect(&f);
	fake_model(&f, 1, 0, 65536, 65536);
	t = in_lane();
	assert_int_equal(pthread_create(&worker, NULL, answer, (void *)(intptr_t)answered), 0);
	began = pb_now_ns();
	assert_int_equal(pt2box_run(f.m, &t, 1, &o, NULL, &e), PT2BOX_CANCELLED);
	assert_int_equal(e.status, PT2BOX_CANCELLED);
	assert_in_range((pb_now_ns() - began) / 1000000u, 150, 1500);
	assert_int_equal(asked, 2); /* not again once it has said so */
	pthread_join(worker, NULL);
	assert_int_equal(fake_hear(&f)->row->id, PB_MSG_cancel);
	pt2box_tensor_free(t);
	assert_int_equal(f.m->lane->up.used, 0);
	fake_close(&f);
}

static void test_interrupted(void **state)
{
	(void)state;
	check_interrupted(PT2BOX_OK);
	check_interrupted(PT2BOX_CANCELLED);
	check_interrupted(PT2BOX_MODEL_CRASHED);
}

static void *take_turns(void *data)
{
	struct pb_lane_client *l = f.m->lane;
	_Atomic bool *stop = data;

	/* Others get every slot that comes free, and there is one all the time. */
	while (!*stop) {
		usleep(3000);
		pthread_mutex_lock(&l->lock);
		if (l->waiters)
			pthread_cond_broadcast(&l->changed);
		pthread_mutex_unlock(&l->lock);
	}
	return NULL;
}

/* All slots are taken: the caller is asked meanwhile, also where slots come and go. */
static void test_interrupted_without_slot(void **state)
{
	struct pt2box_tensor *t, *out[1];
	struct pt2box_error e;
	_Atomic bool stop = false;
	pthread_t others;

	(void)state;
	fake_connect(&f);
	fake_model(&f, 1, 1, 65536, 65536);
	t = in_lane();
	f.m->lane->free_slots = 0;
	for (int turn = 0; turn < 2; turn++) {
		struct pt2box_run_options o = options(3);

		if (turn)
			assert_int_equal(pthread_create(&others, NULL, take_turns, &stop), 0);
		assert_int_equal(pt2box_run(f.m, &t, 1, &o, out, &e), PT2BOX_CANCELLED);
		assert_int_equal(asked, 3);
	}
	stop = true;
	pthread_join(others, NULL);
	assert_int_equal(f.m->lane->waiters, 0);
	f.m->lane->free_slots = 15;
	pt2box_tensor_free(t);
	fake_close(&f);
}

/* An older program's options end before what it does not know. */
static void test_older_options(void **state)
{
	struct pt2box_run_options o = options(1);
	struct pt2box_tensor *t;
	struct pb_run r;

	(void)state;
	fake_connect(&f);
	fake_model(&f, 1, 0, 65536, 65536);
	t = in_lane();
	o.struct_size = offsetof(struct pt2box_run_options, interrupted);
	o.retries = 3;
	assert_int_equal(pb_run_init(&r, f.m, &t, 1, &o, NULL), PT2BOX_OK);
	assert_null(r.interrupted);
	assert_int_equal(r.retries, 3);
	pt2box_tensor_free(t);
	fake_close(&f);
}

/* A seed goes with the run, also when it is repeated with a larger window; without one nothing is said. */
static void test_seed(void **state)
{
	struct pt2box_run_options o = PT2BOX_RUN_OPTIONS_INIT;
	const struct pb_lane_request *q;
	const uint64_t seed = UINT64_MAX;
	struct pt2box_tensor *t;
	struct pb_run r;
	pb_status st;

	(void)state;
	fake_connect(&f);
	fake_model(&f, 1, 0, 65536, 1 << 20);
	t = in_lane();
	for (int with = 0; with < 2; with++) {
		o.seed = with ? &seed : NULL;
		assert_int_equal(pb_run_init(&r, f.m, &t, 1, &o, NULL), PT2BOX_OK);
		assert_int_equal(pb_run_begin(&r, true, NULL), PT2BOX_OK);
		q = fake_claim(&f);
		assert_int_equal(q->seeded, with);
		assert_true(q->seed == (with ? seed : 0));
		fake_reply(&f, &(struct pb_lane_reply){.status = PT2BOX_WINDOW, .needed_bytes = q->window_bytes + 1});
		assert_false(pb_run_step(&r, NULL, &st, NULL));
		q = fake_claim(&f);
		assert_int_not_equal(q->fetch, 0);
		assert_int_equal(q->seeded, with);
		fake_reply(&f, &(struct pb_lane_reply){.status = PT2BOX_OK});
		assert_true(pb_run_step(&r, NULL, &st, NULL));
		assert_int_equal(st, PT2BOX_OK);
	}
	pt2box_tensor_free(t);
	fake_close(&f);
}

/* ---- boxed ---- */

static void *look_and_answer(void *used)
{
	struct pb_lane_tensor t;
	const struct pb_lane_request *q;

	while (!(q = fake_claim(&f)))
		usleep(1000);
	/* Before the model starts the list is empty, and its bytes in the lane are all there. */
	*(uint64_t *)used = f.m->lane->up.used;
	t = q->inputs[0];
	fake_reply(&f, &(struct pb_lane_reply){.n_outputs = 1, .outputs = &t});
	return NULL;
}

static void test_boxed(void **state)
{
	float memory[64] = {[3] = 7};
	struct pt2box_tensor *in[2], *out[1];
	uint64_t used = 0;
	pthread_t worker;

	(void)state;
	fake_connect(&f);
	fake_model(&f, 2, 1, 65536, 65536);
	in[0] = in_lane();
	((float *)in[0]->info.data)[3] = 5;
	assert_int_equal(pt2box_tensor_lend(PT2BOX_FLOAT32, 1, (int64_t[]){64}, NULL, memory, &in[1], NULL), PT2BOX_OK);
	assert_int_equal(pthread_create(&worker, NULL, look_and_answer, &used), 0);
	assert_int_equal(pt2box_boxed_run(f.m, in, 2, NULL, out, NULL), PT2BOX_OK);
	pthread_join(worker, NULL);
	assert_int_equal(used, 512);
	assert_null(in[0]);
	assert_null(in[1]);
	/* The output lies in what was the first input. */
	assert_true(((float *)out[0]->info.data)[3] == 5);
	assert_int_equal(f.m->lane->up.used, 256);
	pt2box_tensor_free(out[0]);
	assert_int_equal(f.m->lane->up.used, 0);
	fake_close(&f);
}

/* Taken, whatever becomes of the run. */
static void test_boxed_fails(void **state)
{
	struct pt2box_tensor *in[2], *out[1];
	struct pt2box_error e;

	(void)state;
	fake_connect(&f);
	fake_model(&f, 2, 1, 65536, 65536);
	in[0] = in_lane();
	assert_int_equal(pt2box_boxed_run(f.m, in, 1, NULL, out, &e), PT2BOX_BAD_TENSOR);
	assert_null(in[0]);
	in[0] = in_lane();
	in[1] = NULL;
	assert_int_equal(pt2box_boxed_run(f.m, in, 2, NULL, out, &e), PT2BOX_USAGE);
	assert_null(in[0]);
	assert_int_equal(f.m->lane->up.used, 0);
	fake_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_interrupted),	CHECK_TEST(test_interrupted_without_slot),
		CHECK_TEST(test_older_options), CHECK_TEST(test_seed), CHECK_TEST(test_boxed),
		CHECK_TEST(test_boxed_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
