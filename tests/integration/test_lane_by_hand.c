/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Requests in a lane by hand (C08, C11): shapes, dtypes, offsets and windows that lie, garbage, and inputs that change while the
 * model runs. Each is answered with its named status, the worker is not harmed, and the next honest request is served.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "ipc/lane.h"
#include "tests/lib/broker.h"
#include "tests/lib/canary.h"
#include "tests/lib/check.h"
#include "tests/lib/package.h"
#include "tests/lib/raw.h"

#define N 16
#define ANSWER_MS 8000
#define WINDOW 8192 /* where outputs go in the down memory */
#define FLOAT32 6

static struct test_paths paths;
static struct test_broker broker;
static struct test_canary canary;
static struct test_resources base;

static struct {
	int fd;
	struct pb_lane lane;
	uint32_t seq;
	struct pb_lane_decoder *decoder;
	uint8_t reply[65536];
} c;

/* Load tests/hostile/NAME.3.so and open a lane to it. */
static void open_lane(const char *name)
{
	struct pb_msg_lane_open open_msg = {.request = 2, .up_bytes = 65536, .down_bytes = 65536};
	struct pb_lane_geometry geo;
	struct pt2box_error e;
	struct test_package p = {.constants = false};
	char so[400], path[300];
	int package;

	snprintf(so, sizeof(so), "%s/%s.3.so", paths.models, name);
	snprintf(path, sizeof(path), "%s/hand.pt2", broker.dir);
	p.so_path = so;
	p.constants = strcmp(name, "change") == 0;
	assert_int_equal(test_package_write(path, &p), 0);
	package = open(path, O_RDONLY | O_CLOEXEC);
	unlink(path);
	c.fd = raw_open(broker.socket);
	raw_send_load(c.fd, 1, package, 0);
	close(package);
	assert_int_equal(raw_answer(c.fd, ANSWER_MS), PB_MSG_loaded);
	open_msg.model = raw_rx.msg.loaded.model;
	assert_int_equal(pb_send(c.fd, PB_MSG_lane_open, &open_msg, NULL, 0, NULL), PT2BOX_OK);
	assert_int_equal(raw_answer_fds(c.fd, ANSWER_MS), PB_MSG_lane);
	geo = (struct pb_lane_geometry){.slots = (uint32_t)raw_rx.msg.lane.slots,
					.slot_bytes = (uint32_t)raw_rx.msg.lane.slot_bytes,
					.up_bytes = raw_rx.msg.lane.up_bytes,
					.down_bytes = raw_rx.msg.lane.down_bytes};
	assert_int_equal(pb_lane_map(&c.lane, PB_LANE_CLIENT, &geo, raw_rx.fds.fd[0], raw_rx.fds.fd[1], &e), PT2BOX_OK);
	pb_fds_close(&raw_rx.fds);
	c.decoder = pb_lane_decoder_new(16);
	c.seq = 0;
}

static void close_lane(void)
{
	pb_lane_unmap(&c.lane);
	c.decoder = pb_lane_decoder_free(c.decoder);
	close(c.fd);
}

static float *input(void)
{
	return (float *)(void *)c.lane.up_seg[0].base;
}

/* Post these bytes in slot 0; the status of the answer. */
static enum pt2box_status post(const uint8_t *payload, uint32_t len)
{
	const struct pb_lane_reply *r;
	uint32_t n;

	pb_lane_submit(&c.lane, 0, ++c.seq, payload, len);
	if (!pb_lane_wait(&c.lane, 0, c.seq, &(struct pb_lane_pace){.run_ns = 0}, pb_now_ns() + ANSWER_MS * 1000000ull))
		fail_msg("no answer");
	n = pb_lane_take_reply(&c.lane, 0, c.reply, sizeof(c.reply));
	assert_int_equal(pb_lane_decode_reply(c.decoder, c.reply, n, &r), PT2BOX_OK);
	return (enum pt2box_status)r->status;
}

static enum pt2box_status request(const struct pb_lane_request *q)
{
	static uint8_t buf[65536];
	uint32_t len = pb_lane_encode_request(q, buf, c.lane.geo.slot_bytes);

	assert_true(len > 0);
	return post(buf, len);
}

static struct pb_lane_tensor honest_tensor(void)
{
	return (struct pb_lane_tensor){.dtype = FLOAT32, .ndim = 1, .sizes = {N}, .strides = {1}};
}

static enum pt2box_status honest_request(void)
{
	struct pb_lane_tensor t = honest_tensor();
	const struct pb_lane_request q = {.window_offset = WINDOW, .window_bytes = 4096, .n_inputs = 1, .inputs = &t};

	for (int i = 0; i < N; i++)
		input()[i] = (float)i + 1;
	return request(&q);
}

enum field { SIZE, NDIM, STRIDE, DTYPE, OFFSET, SEGMENT, DOWN, COUNT, WINDOW_AT, WINDOW_BYTES, WINDOW_SEGMENT, FETCH };

static void test_requests_by_hand(void **state)
{
	static const struct {
		const char *what;
		enum field field;
		int64_t value;
		enum pt2box_status want;
	} lie[] = {
		{"2^40 elements", SIZE, 1ll << 40, PT2BOX_BAD_TENSOR},
		{"one element less", SIZE, N - 1, PT2BOX_BAD_TENSOR},
		{"no element", SIZE, 0, PT2BOX_BAD_TENSOR},
		{"a size that overflows", SIZE, INT64_MAX, PT2BOX_PROTOCOL},
		{"a negative size", SIZE, -16, PT2BOX_PROTOCOL},
		{"one dimension less", NDIM, 0, PT2BOX_BAD_TENSOR},
		{"a stride beyond the segment", STRIDE, 1 << 20, PT2BOX_BAD_TENSOR},
		{"a negative stride", STRIDE, -1, PT2BOX_PROTOCOL},
		{"a stride that overflows", STRIDE, INT64_MAX, PT2BOX_PROTOCOL},
		{"float64", DTYPE, 7, PT2BOX_BAD_TENSOR},
		{"a dtype that there is not", DTYPE, 99, PT2BOX_PROTOCOL},
		{"an offset just beyond the end", OFFSET, 65536 - 4 * N + 4, PT2BOX_BAD_TENSOR},
		{"an offset far outside", OFFSET, INT64_MAX, PT2BOX_BAD_TENSOR},
		{"a segment that there is not", SEGMENT, 4242, PT2BOX_BAD_TENSOR},
		{"an input in the down memory", DOWN, 1, PT2BOX_BAD_TENSOR},
		{"no inputs", COUNT, 0, PT2BOX_BAD_TENSOR},
		{"two inputs", COUNT, 2, PT2BOX_BAD_TENSOR},
		{"a window outside", WINDOW_AT, 1ll << 40, PT2BOX_BAD_TENSOR},
		{"a window without end", WINDOW_BYTES, INT64_MAX, PT2BOX_BAD_TENSOR},
		{"a window in a segment that there is not", WINDOW_SEGMENT, 99, PT2BOX_BAD_TENSOR},
		{"outputs of a run that never was", FETCH, 12345, PT2BOX_NOT_FOUND},
	};
	int wrong = 0;

	(void)state;
	open_lane("benign");
	assert_int_equal(honest_request(), PT2BOX_OK);
	for (size_t i = 0; i < sizeof(lie) / sizeof(lie[0]); i++) {
		struct pb_lane_tensor t[2] = {honest_tensor(), honest_tensor()};
		struct pb_lane_request q = {.window_offset = WINDOW, .window_bytes = 4096, .n_inputs = 1, .inputs = t};
		const int64_t v = lie[i].value;
		enum pt2box_status st;

		switch (lie[i].field) {
		case SIZE: t[0].sizes[0] = v; break;
		case NDIM: t[0].ndim = (int32_t)v; break;
		case STRIDE: t[0].strides[0] = v; break;
		case DTYPE: t[0].dtype = (int32_t)v; break;
		case OFFSET: t[0].offset = (uint64_t)v; break;
		case SEGMENT: t[0].segment = (uint32_t)v; break;
		case DOWN: t[0].down = v; break;
		case COUNT: q.n_inputs = (uint32_t)v; break;
		case WINDOW_AT: q.window_offset = (uint64_t)v; break;
		case WINDOW_BYTES: q.window_bytes = (uint64_t)v; break;
		case WINDOW_SEGMENT: q.window_segment = (uint32_t)v; break;
		case FETCH: q.fetch = (uint32_t)v; break;
		}
		st = request(&q);
		if (st != lie[i].want) {
			print_error("%s: %s, not %s\n", lie[i].what, pt2box_status_name(st), pt2box_status_name(lie[i].want));
			wrong++;
		}
		assert_int_equal(honest_request(), PT2BOX_OK);
	}
	assert_int_equal(wrong, 0);
	close_lane();
}

static void test_garbage_in_slots(void **state)
{
	static const char *const bytes[] = {"\xc1", "\xdd\xff\xff\xff\xff", "\x91\x91\x91\x91\x91\x91", "\x95\x00\x00\x00\x00\xdd\xff\xff\xff\xff"};
	uint64_t seed = 3;

	(void)state;
	open_lane("benign");
	for (size_t i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++)
		assert_int_equal(post((const uint8_t *)bytes[i], (uint32_t)strlen(bytes[i]) ? (uint32_t)strlen(bytes[i]) : 1),
				 PT2BOX_PROTOCOL);
	for (int i = 0; i < 200; i++) {
		uint8_t junk[200];

		for (size_t k = 0; k < sizeof(junk); k++)
			junk[k] = (uint8_t)check_rand(&seed);
		assert_int_equal(post(junk, sizeof(junk)), PT2BOX_PROTOCOL);
	}
	assert_int_equal(honest_request(), PT2BOX_OK);
	close_lane();
}

/* C08: the model computes on whatever is there: its own client's bytes, and nobody else's result. */
static void test_inputs_that_change(void **state)
{
	static uint8_t buf[65536];
	struct pb_lane_tensor t = honest_tensor();
	const struct pb_lane_request q = {.window_offset = WINDOW, .window_bytes = 4096, .n_inputs = 1, .inputs = &t};
	const struct pb_lane_reply *r;
	uint32_t len = pb_lane_encode_request(&q, buf, sizeof(buf)), n;
	long changes = 0;

	(void)state;
	open_lane("change"); /* 777: it takes 400 ms */
	for (int i = 0; i < N; i++)
		input()[i] = 1;
	input()[0] = 777;
	pb_lane_submit(&c.lane, 0, ++c.seq, buf, len);
	for (long until = test_now_ms() + 5000; !pb_lane_is_done(&c.lane, 0, c.seq) && test_now_ms() < until; changes++)
		input()[1 + changes % (N - 1)] = (float)changes;
	assert_true(pb_lane_is_done(&c.lane, 0, c.seq) && changes > 1000);
	n = pb_lane_take_reply(&c.lane, 0, c.reply, sizeof(c.reply));
	assert_int_equal(pb_lane_decode_reply(c.decoder, c.reply, n, &r), PT2BOX_OK);
	assert_int_equal(r->status, PT2BOX_OK);
	assert_int_equal(honest_request(), PT2BOX_OK);
	close_lane();
}

/* ---- set-up ---- */

static int unharmed(void **state)
{
	const char *why = test_canary_check(&canary);

	(void)state;
	if (!why)
		why = test_broker_back_to(&broker, &base, 4000);
	if (why)
		print_error("%s\n", why);
	return why != NULL;
}

static int begin(void **state)
{
	(void)state;
	alarm(60);
	if (test_broker_start(&broker, paths.programs) != 0)
		return -1;
	if (test_canary_start(&canary, &broker, paths.honest) != 0) {
		test_broker_stop(&broker);
		return -1;
	}
	test_broker_resources(&broker, &base);
	return 0;
}

static int end(void **state)
{
	int left;

	(void)state;
	if (!canary.state)
		return 1; /* set-up failed, and has said why */
	test_canary_stop(&canary);
	left = test_broker_stop(&broker);
	test_remove_tree(broker.dir);
	alarm(0);
	return left;
}

static int run_all(void)
{
#define UNHARMED(test) cmocka_unit_test_teardown(test, unharmed)
	const struct CMUnitTest tests[] = {UNHARMED(test_requests_by_hand), UNHARMED(test_garbage_in_slots),
					   UNHARMED(test_inputs_that_change)};

	return cmocka_run_group_tests_name("lane by hand", tests, begin, end);
}

int main(void)
{
	int bad;

	test_paths_init(&paths);
	bad = run_all();
	return geteuid() == 0 ? test_as_ordinary_user(&paths, run_all) || bad : bad;
}
