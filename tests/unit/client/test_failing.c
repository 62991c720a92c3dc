/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc,--wrap=mmap,--wrap=memfd_create,--wrap=ftruncate,--wrap=fcntl */
/* Every call that can fail fails once: a status, nothing lost, and the next run succeeds. */
#include <string.h>

#include "client/constants.h"
#include "tests/lib/check.h"
#include "tests/unit/client/fake.h"

static struct fake f;
static float lent_data[40];

/* Answer what the client asked: a large output, two small ones that overlap, an alias of input 0.
 */
static void work(void)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	const struct pb_lane_request *q = fake_claim(&f);

	assert_non_null(q);
	for (int i = 0; i < 3; i++)
		t[i] = (struct pb_lane_tensor){.down = true,
					       .dtype = PT2BOX_FLOAT32,
					       .ndim = 1,
					       .segment = q->window_segment,
					       .offset = q->window_offset + 64u * (unsigned)i,
					       .sizes = {16},
					       .strides = {1}};
	t[1].offset = t[0].offset + 16;
	t[2].offset += 4096;
	t[2].sizes[0] = 20000;
	t[3] = q->inputs[0];
	fake_reply(&f, &p);
}

static pb_status scenario(void)
{
	struct pt2box_tensor *in[2] = {NULL}, *out[4] = {NULL};
	struct pb_run r;
	pb_status st;

	st = pt2box_tensor_alloc(f.m, PT2BOX_FLOAT32, 1, (int64_t[]){16}, &in[0], NULL);
	if (!st)
		st = pt2box_tensor_lend(PT2BOX_FLOAT32, 1, (int64_t[]){10}, (int64_t[]){4},
					lent_data, &in[1], NULL);
	if (!st)
		st = pb_run_init(&r, f.m, in, 2, NULL, NULL);
	if (!st)
		st = pb_run_begin(&r, true, NULL);
	if (!st) {
		work();
		assert_true(pb_run_step(&r, out, &st, NULL));
	}
	for (int i = 0; i < 4; i++) {
		assert_true(!st == (out[i] != NULL) || st);
		pt2box_tensor_free(out[i]);
	}
	pt2box_tensor_free(in[0]);
	pt2box_tensor_free(in[1]);
	return st;
}

static bool open_fake(void)
{
	fake_connect(&f);
	fake_model(&f, 2, 4, 256u << 10, 1u << 20);
	f.m->lane->window_bytes = 256u << 10;
	return true;
}

static void test_run(void **state)
{
	long n;

	(void)state;
	for (n = 0; open_fake() && check_fail_at(n); n++) {
		pb_status st = scenario();

		check_disarm();
		if (st)
			assert_int_equal(st, PT2BOX_NO_MEMORY);
		if (n == 0)
			assert_int_equal(st, PT2BOX_OK);
		assert_int_equal(f.m->lane->up.used, 0);
		assert_int_equal(f.m->lane->down.used, 0);
		assert_int_equal(f.m->lane->free_slots, 15);
		assert_int_equal(atomic_load(&f.m->lane->refs), 1);
		assert_int_equal(scenario(), PT2BOX_OK);
		fake_close(&f);
	}
	assert_true(n > 15);
	fake_close(&f);
}

static void test_lane(void **state)
{
	struct pb_msg_lane m = {
		.lane = 7, .slots = 4, .slot_bytes = 4096, .up_bytes = 65536, .down_bytes = 65536};
	int up = fake_memory(1 << 20), down = fake_memory(1 << 20);

	(void)state;
	fake_connect(&f);
	for (long n = 0; check_fail_at(n); n++) {
		struct pb_lane_client *l = NULL;
		pb_status st = pb_lane_client_new(f.c, &m, up, down, 1, 1, &l, NULL);

		check_disarm();
		assert_int_equal(st != PT2BOX_OK, check_failed());
		pb_lane_client_unref(st ? NULL : l);
		assert_int_equal(atomic_load(&f.c->refs), 1);
	}
	/* Memory that is smaller than what is said of it. */
	m.up_bytes = 1 << 20;
	assert_int_equal(
		pb_lane_client_new(f.c, &m, up, down, 1, 1, &(struct pb_lane_client *){NULL}, NULL),
		PT2BOX_BAD_FD);
	m.up_bytes = 0;
	assert_int_equal(
		pb_lane_client_new(f.c, &m, up, down, 1, 1, &(struct pb_lane_client *){NULL}, NULL),
		PT2BOX_PROTOCOL);
	close(up);
	close(down);
	close(f.broker);
	pt2box_close(f.c);
}

static struct pb_constant declared[] = {
	{.name = "a", .fqn = "a", .dtype = PT2BOX_INT32, .ndim = 1, .sizes = {10}, .strides = {1}, .data_size = 40},
	{.name = "b", .fqn = "b", .dtype = PT2BOX_INT32, .ndim = 1, .sizes = {4}, .strides = {1}, .data_size = 16,
	 .blob_offset = 64},
};
static struct pb_manifest manifest = {.constants = declared, .n_constants = 2, .const_bytes = 80, .const_source = PB_CONSTS_BLOB};

/* One contiguous, one gathered. */
static pb_status give_constants(void)
{
	struct pt2box_constant list[2] = {{"a", NULL}, {"b", NULL}};
	int fd = -1;
	pb_status st;

	st = pt2box_tensor_lend(PT2BOX_INT32, 1, (int64_t[]){10}, NULL, lent_data, &list[0].tensor, NULL);
	if (!st)
		st = pt2box_tensor_lend(PT2BOX_INT32, 1, (int64_t[]){4}, (int64_t[]){5}, lent_data, &list[1].tensor, NULL);
	if (!st)
		st = pb_constants_check(&manifest, list, 2, 11, NULL);
	if (!st)
		st = pb_constants_file(list, 2, &fd, NULL);
	assert_true(!st == (fd >= 0));
	if (fd >= 0)
		close(fd);
	pt2box_tensor_free(list[0].tensor);
	pt2box_tensor_free(list[1].tensor);
	return st;
}

static void test_give_constants(void **state)
{
	long n;

	(void)state;
	for (n = 0; check_fail_at(n); n++) {
		pb_status st = give_constants();

		check_disarm();
		assert_int_equal(st != PT2BOX_OK, check_failed());
		assert_int_equal(give_constants(), PT2BOX_OK);
	}
	assert_true(n > 8);
}

/* The answer is there before it is asked for. */
static void test_take_constants(void **state)
{
	static uint8_t values[82] = {[80] = 1, [81] = 1};
	struct pb_msg_constants_values m = {.request = 0};
	struct pt2box_constant *list = NULL;
	size_t n_list = 0;
	long n = 0;
	bool more;
	int fd;

	(void)state;
	fake_connect(&f);
	fake_model(&f, 2, 4, 256u << 10, 1u << 20);
	f.m->manifest = &manifest;
	assert_int_equal(pb_memfd_from("values", values, sizeof(values), &fd, NULL), PT2BOX_OK);
	do {
		pb_status st;

		m.request = f.c->next_request;
		fake_say(&f, PB_MSG_constants_values, &m, &fd, 1);
		more = check_fail_at(n++);
		st = pt2box_extract_constants(f.m, 0, &list, &n_list, NULL);
		check_disarm();
		assert_int_equal(st != PT2BOX_OK, more && check_failed());
		if (!st)
			pt2box_free_constants(list, n_list);
		assert_int_equal(fake_hear(&f)->row->id, PB_MSG_read_constants);
	} while (more);
	assert_true(n > 4);
	close(fd);
	f.m->manifest = NULL;
	fake_close(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_run),
		CHECK_TEST(test_lane),
		CHECK_TEST(test_give_constants),
		CHECK_TEST(test_take_constants),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
