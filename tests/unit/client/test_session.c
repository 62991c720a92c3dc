/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: their messages, what they share with their model, every order in which handles are freed. */
#include <pthread.h>
#include <string.h>

#include "tests/lib/check.h"
#include "tests/unit/client/fake.h"

static struct fake f;

struct script {
	uint32_t session;    /* given by the broker; 0: it refuses */
	bool lane;	     /* or it refuses that */
	bool number_missing; /* a session of number 0 */
};

static const struct pb_rx *hear(enum pb_msg_id id)
{
	const struct pb_rx *rx;

	while (!(rx = fake_hear(&f)))
		usleep(200);
	assert_int_equal(rx->row->id, id);
	return rx;
}

static void refuse(uint64_t request, const char *why)
{
	struct pb_msg_failed m = {.request = request, .status = PT2BOX_LIMIT};

	strcpy(m.text, why);
	fake_say(&f, PB_MSG_failed, &m, NULL, 0);
}

static void give_lane(uint64_t request)
{
	struct pb_msg_lane m = {.request = request,
				.lane = 8,
				.slots = 4,
				.slot_bytes = pb_lane_slot_bytes(1, 1),
				.up_bytes = 65536,
				.down_bytes = 65536};
	int fds[2] = {fake_memory(1 << 20), fake_memory(1 << 20)};

	fake_say(&f, PB_MSG_lane, &m, fds, 2);
	close(fds[0]);
	close(fds[1]);
}

static void *broker(void *data)
{
	const struct script *s = data;
	const struct pb_rx *rx = hear(PB_MSG_session_open);
	struct pb_msg_session m = {.request = rx->msg.session_open.request, .session = s->session};

	assert_int_equal(rx->msg.session_open.model, 3);
	if (!s->session && !s->number_missing) {
		refuse(m.request, "no room for a session");
		return NULL;
	}
	fake_say(&f, PB_MSG_session, &m, NULL, 0);
	if (s->number_missing)
		return NULL;
	rx = hear(PB_MSG_lane_open);
	assert_int_equal(rx->msg.lane_open.model, 3);
	assert_int_equal(rx->msg.lane_open.session, s->session);
	if (s->lane)
		give_lane(rx->msg.lane_open.request);
	else
		refuse(rx->msg.lane_open.request, "no room for a lane");
	return NULL;
}

static pb_status open_session(struct script s, struct pt2box_model **ret, struct pt2box_error *e)
{
	pthread_t thread;
	pb_status st;

	assert_int_equal(pthread_create(&thread, NULL, broker, &s), 0);
	st = pt2box_session_open(f.m, ret, e);
	pthread_join(thread, NULL);
	return st;
}

static struct pb_manifest manifest = {.in_spec = "in", .out_spec = "out"};

static void open_model(void)
{
	fake_connect(&f);
	fake_model(&f, 1, 1, 65536, 65536);
	f.m->manifest = &manifest;
}

static void test_opened(void **state)
{
	struct pt2box_model *s, *nested;
	struct pt2box_tensor *t;
	struct pt2box_error e;
	const char *in, *out;

	(void)state;
	open_model();
	assert_int_equal(open_session((struct script){.session = 5, .lane = true}, &s, &e), PT2BOX_OK);
	assert_int_equal(pt2box_model_n_inputs(s), 1);
	pt2box_model_call_spec(s, &in, &out);
	assert_string_equal(in, "in");
	assert_int_equal(pt2box_tensor_alloc(s, PT2BOX_FLOAT32, 1, (int64_t[]){4}, &t, &e), PT2BOX_OK);
	assert_int_equal(s->lane->up.used, 64);
	assert_int_equal(f.m->lane->up.used, 0); /* a lane of its own */
	assert_int_equal(pt2box_session_open(s, &nested, &e), PT2BOX_USAGE);
	pt2box_unload(s);
	assert_int_equal(hear(PB_MSG_session_close)->msg.session_close.session, 5);
	pt2box_tensor_free(t); /* after its session */
	assert_null(fake_hear(&f));
	assert_int_equal(atomic_load(&f.m->refs), 1);
	f.m->manifest = NULL;
	fake_close(&f);
}

static void test_refused(void **state)
{
	struct pt2box_model *s = NULL;
	struct pt2box_error e;

	(void)state;
	open_model();
	assert_int_equal(open_session((struct script){.session = 0}, &s, &e), PT2BOX_LIMIT);
	assert_string_equal(e.text, "no room for a session");
	assert_int_equal(open_session((struct script){.number_missing = true}, &s, &e), PT2BOX_PROTOCOL);
	assert_null(fake_hear(&f));
	/* A session that gets no lane is given back. */
	assert_int_equal(open_session((struct script){.session = 6}, &s, &e), PT2BOX_LIMIT);
	assert_string_equal(e.text, "no room for a lane");
	assert_int_equal(hear(PB_MSG_session_close)->msg.session_close.session, 6);
	assert_null(s);
	assert_int_equal(atomic_load(&f.m->refs), 1);
	f.m->manifest = NULL;
	fake_close(&f);
}

static void *answer_unload(void *data)
{
	struct pb_msg_done m = {.request = hear(PB_MSG_unload)->msg.unload.request};

	(void)data;
	fake_say(&f, PB_MSG_done, &m, NULL, 0);
	return NULL;
}

/* The model goes first: its session says so, and can still be asked what the package says, and freed. */
static void test_model_first(void **state)
{
	struct pt2box_model *s;
	struct pt2box_tensor *t, *out[1];
	struct pt2box_constant *list;
	struct pt2box_error e;
	const char *in, *text;
	pthread_t thread;
	size_t n;

	(void)state;
	open_model();
	assert_int_equal(open_session((struct script){.session = 5, .lane = true}, &s, &e), PT2BOX_OK);
	assert_int_equal(pt2box_tensor_alloc(s, PT2BOX_FLOAT32, 1, (int64_t[]){4}, &t, &e), PT2BOX_OK);
	assert_int_equal(pthread_create(&thread, NULL, answer_unload, NULL), 0);
	pt2box_unload(f.m);
	pthread_join(thread, NULL);
	assert_int_equal(pt2box_run(s, &t, 1, NULL, out, &e), PT2BOX_USAGE);
	assert_int_equal(pt2box_extract_constants(s, 0, &list, &n, &e), PT2BOX_USAGE);
	pt2box_model_call_spec(s, &in, &text);
	assert_string_equal(in, "in");
	pt2box_tensor_free(t);
	s->of->manifest = NULL; /* not from a decoder */
	pt2box_unload(s);
	assert_null(fake_hear(&f)); /* its worker is gone already */
	pb_lane_unmap(&f.worker);
	pb_lane_decoder_free(f.decoder);
	close(f.broker);
	pt2box_close(f.c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_opened),
		CHECK_TEST(test_refused),
		CHECK_TEST(test_model_first),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
