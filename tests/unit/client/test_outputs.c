/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies of a worker that lies, through the functions that a real one goes through: whatever it
 * says, the caller gets a status or tensors that lie where they may, and the lane's memory is all
 * there again afterwards.
 */
#include <errno.h>
#include <string.h>

#include "tests/lib/check.h"
#include "tests/unit/client/fake.h"

#define DOWN (1u << 20)
#define UP (256u << 10)

static struct fake f;
static struct pt2box_tensor *in[2], *out[4];

/* Two inputs of 64 float32 in the lane, four outputs. */
static void begin(struct pb_run *r)
{
	struct pt2box_error e;

	assert_int_equal(pb_run_init(r, f.m, in, 2, NULL, &e), PT2BOX_OK);
	assert_int_equal(pb_run_begin(r, true, &e), PT2BOX_OK);
}

static void open_fake(void)
{
	struct pt2box_error e;

	fake_connect(&f);
	fake_model(&f, 2, 4, UP, DOWN);
	for (int i = 0; i < 2; i++)
		assert_int_equal(
			pt2box_tensor_alloc(f.m, PT2BOX_FLOAT32, 1, (int64_t[]){64}, &in[i], &e),
			PT2BOX_OK);
}

/* Nothing may be in use any more but what the inputs hold. */
static void close_fake(void)
{
	for (int i = 0; i < 2; i++)
		pt2box_tensor_free(in[i]);
	assert_int_equal(f.m->lane->up.used, 0);
	assert_int_equal(f.m->lane->down.used, 0);
	assert_int_equal(f.m->lane->free_slots, 15);
	assert_int_equal(atomic_load(&f.m->lane->refs), 1);
	fake_close(&f);
}

static struct pb_lane_tensor tensor(const struct pb_lane_request *q, uint64_t at, int64_t n)
{
	return (struct pb_lane_tensor){.down = true,
				       .dtype = PT2BOX_FLOAT32,
				       .ndim = 1,
				       .segment = q->window_segment,
				       .offset = q->window_offset + at,
				       .sizes = {n},
				       .strides = {1}};
}

static struct pb_lane_tensor of_input(const struct pb_lane_request *q, int i)
{
	return q->inputs[i];
}

static void free_out(void)
{
	for (int i = 0; i < 4; i++)
		pt2box_tensor_free(out[i]);
}

/* ---- honest ---- */

static void test_small_are_copies(void **state)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	const struct pb_lane_request *q;
	struct pb_run r;
	pb_status st;
	float *w;

	(void)state;
	open_fake();
	begin(&r);
	q = fake_claim(&f);
	for (int i = 0; i < 4; i++)
		t[i] = tensor(q, (uint64_t)i * 256, 64);
	t[3] = t[2]; /* the same memory twice */
	t[3].offset += 16;
	t[3].sizes[0] = 2;
	t[1] = (struct pb_lane_tensor){.none = true};
	w = (float *)(void *)pb_lane_span(&f.worker, true, q->window_segment, q->window_offset,
					  4096);
	for (int i = 0; i < 256; i++)
		w[i] = (float)i;
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	memset(w, 0xff, 4096); /* the worker may write on */
	assert_null(out[1]);
	for (int i = 0; i < 64; i++)
		assert_true(((float *)out[0]->info.data)[i] == (float)i);
	assert_ptr_equal(out[3]->info.data, (char *)out[2]->info.data + 16);
	assert_int_equal(out[0]->info.readonly, 0);
	assert_int_equal(f.m->lane->down.used, 0); /* the window is free at once */
	free_out();
	close_fake();
}

static void test_large_stay(void **state)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	const struct pb_lane_request *q;
	struct pb_run r;
	pb_status st;

	(void)state;
	open_fake();
	f.m->lane->window_bytes = 512u << 10;
	begin(&r);
	q = fake_claim(&f);
	/* A gap, a large one, a small one, a large one with a view of it, a gap. */
	t[0] = tensor(q, 4096, 25000);
	t[1] = tensor(q, 4096 + 100096, 16);
	t[2] = tensor(q, 200064, 20000);
	t[3] = tensor(q, 200064 + 400, 10);
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	assert_int_equal(out[0]->info.readonly, 1);
	assert_int_equal(out[1]->info.readonly, 0);
	assert_int_equal(out[3]->info.readonly, 1);
	assert_ptr_equal(out[3]->info.data, (char *)out[2]->info.data + 400);
	/* Only what is kept is in use, in whole lines. */
	assert_int_equal(f.m->lane->down.used, 100032 + 80000);
	pt2box_tensor_free(out[2]);
	assert_int_equal(f.m->lane->down.used, 100032 + 80000); /* its view needs it */
	pt2box_tensor_free(out[3]);
	assert_int_equal(f.m->lane->down.used, 100032);
	pt2box_tensor_free(out[0]);
	pt2box_tensor_free(out[1]);
	close_fake();
}

static void expect_input(const struct pt2box_tensor *t, int index, int64_t offset)
{
	size_t i = 99;
	int64_t at = 99;

	if (index < 0) {
		assert_int_equal(pt2box_tensor_input(t, &i, &at), 0);
		return;
	}
	assert_int_equal(pt2box_tensor_input(t, &i, &at), 1);
	assert_int_equal(i, index);
	assert_int_equal(at, offset);
}

static void test_aliases_of_inputs(void **state)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	const struct pb_lane_request *q;
	struct pb_run r;
	pb_status st;

	(void)state;
	open_fake();
	begin(&r);
	q = fake_claim(&f);
	t[0] = of_input(q, 0);
	t[1] = of_input(q, 1);
	t[1].offset += 128;
	t[1].sizes[0] = 32;
	t[2] = of_input(q, 0);
	t[3] = of_input(q, 0);
	t[3].sizes[0] = 0;
	t[3].offset = 1ull << 50; /* without elements nothing is looked at */
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	assert_ptr_equal(out[0]->info.data, in[0]->info.data);
	assert_ptr_equal(out[1]->info.data, (char *)in[1]->info.data + 128);
	expect_input(out[0], 0, 0);
	expect_input(out[1], 1, 128);
	expect_input(out[2], 0, 0);
	expect_input(out[3], -1, 0);
	pt2box_tensor_free(in[0]);
	pt2box_tensor_free(in[1]);
	in[0] = in[1] = NULL;
	assert_int_equal(f.m->lane->up.used, 512); /* still there */
	free_out();
	close_fake();
}

/*
 * Views of copies. Two of one input share its copy; where the caller's tensor has holes, or is not as the copy is, nothing is
 * said of its memory; and an output may be larger than its input within the block, but not as a view of the caller's memory.
 */
static void test_aliases_of_lent(void **state)
{
	static float memory[2][64];
	struct pt2box_tensor *lent[2];
	struct pb_lane_tensor t[4];
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	const struct pb_lane_request *q;
	struct pb_run r;
	pb_status st;

	(void)state;
	open_fake();
	for (int i = 0; i < 64; i++)
		memory[0][i] = (float)i;
	assert_int_equal(pt2box_tensor_lend(PT2BOX_FLOAT32, 1, (int64_t[]){20}, NULL, memory[0], &lent[0], NULL), PT2BOX_OK);
	assert_int_equal(pt2box_tensor_lend(PT2BOX_FLOAT32, 1, (int64_t[]){20}, (int64_t[]){3}, memory[1], &lent[1], NULL),
			 PT2BOX_OK);
	assert_int_equal(pb_run_init(&r, f.m, lent, 2, NULL, NULL), PT2BOX_OK);
	assert_int_equal(pb_run_begin(&r, true, NULL), PT2BOX_OK);
	q = fake_claim(&f);
	t[0] = of_input(q, 0);
	t[1] = of_input(q, 0);
	t[1].offset += 16;
	t[1].sizes[0] = 2;
	t[2] = of_input(q, 1);
	t[3] = of_input(q, 0);
	t[3].sizes[0] = 21;
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	expect_input(out[0], 0, 0);
	expect_input(out[1], 0, 16);
	expect_input(out[2], -1, 0);
	expect_input(out[3], -1, 0);
	assert_true(((float *)out[1]->info.data)[1] == 5);
	((float *)out[0]->info.data)[5] = 99;
	assert_true(((float *)out[1]->info.data)[1] == 99);
	assert_true(memory[0][5] == 5);
	free_out();
	for (int i = 0; i < 2; i++)
		pt2box_tensor_free(lent[i]);
	close_fake();
}

/* ---- lies ---- */

struct lie {
	const char *name;
	void (*tell)(const struct pb_lane_request *q, struct pb_lane_tensor *t,
		     struct pb_lane_reply *p);
};

#define LIE(name)                                                                   \
	static void name(const struct pb_lane_request *q, struct pb_lane_tensor *t, \
			 struct pb_lane_reply *p)
#define UNUSED_LIE (void)q, (void)t, (void)p

LIE(before_window)
{
	UNUSED_LIE;
	t[2].offset = q->window_offset - 4;
}

LIE(after_window)
{
	UNUSED_LIE;
	t[2].offset = q->window_offset + q->window_bytes - 252;
}

LIE(far_away)
{
	UNUSED_LIE;
	t[2].offset = INT64_MAX & ~3ll;
}

LIE(other_segment)
{
	UNUSED_LIE;
	t[0].segment = 5;
}

LIE(long_stride)
{
	UNUSED_LIE;
	t[0].strides[0] = 1 << 20;
}

LIE(huge_sizes)
{
	UNUSED_LIE;
	t[0].ndim = 3;
	for (int i = 0; i < 3; i++) {
		t[0].sizes[i] = 1ll << 40;
		t[0].strides[i] = 0;
	}
}

LIE(odd_offset)
{
	UNUSED_LIE;
	t[1].offset += 2;
}

LIE(up_outside_inputs)
{
	UNUSED_LIE;
	t[0] = of_input(q, 1);
	t[0].offset += 256;
}

LIE(up_across_inputs)
{
	UNUSED_LIE;
	t[0] = of_input(q, 0);
	t[0].sizes[0] = 65;
}

LIE(too_few)
{
	UNUSED_LIE;
	p->n_outputs = 3;
}

LIE(none_at_all)
{
	UNUSED_LIE;
	p->n_outputs = 0;
}

LIE(unknown_status)
{
	UNUSED_LIE;
	p->status = 99;
}

LIE(status_of_ours)
{
	UNUSED_LIE;
	p->status = PT2BOX_BROKER_LOST;
}

LIE(status_not_found)
{
	UNUSED_LIE;
	p->status = PT2BOX_NOT_FOUND;
}

LIE(window_large_enough)
{
	UNUSED_LIE;
	p->status = PT2BOX_WINDOW;
	p->needed_bytes = q->window_bytes;
}

static struct pb_lane_written written;

LIE(written_number)
{
	UNUSED_LIE;
	written.input = 2;
	p->n_written = 1;
}

LIE(written_up)
{
	UNUSED_LIE;
	written.copy = of_input(q, 0);
	p->n_written = 1;
}

LIE(written_outside)
{
	UNUSED_LIE;
	written.copy.offset = q->window_offset + q->window_bytes;
	p->n_written = 1;
}

LIE(written_shape)
{
	UNUSED_LIE;
	written.copy.sizes[0] = 63;
	p->n_written = 1;
}

LIE(written_dtype)
{
	UNUSED_LIE;
	written.copy.dtype = PT2BOX_INT32;
	p->n_written = 1;
}

static void test_lies(void **state)
{
	static const struct lie lies[] = {
		{"before its window", before_window},
		{"after its window", after_window},
		{"far away", far_away},
		{"another segment", other_segment},
		{"a long stride", long_stride},
		{"sizes that overflow", huge_sizes},
		{"an odd offset", odd_offset},
		{"outside the inputs", up_outside_inputs},
		{"across inputs", up_across_inputs},
		{"too few", too_few},
		{"none at all", none_at_all},
		{"an unknown status", unknown_status},
		{"a status of the client", status_of_ours},
		{"nothing to fetch", status_not_found},
		{"a window that it has", window_large_enough},
		{"wrote no such input", written_number},
		{"wrote into the inputs", written_up},
		{"wrote outside", written_outside},
		{"wrote another shape", written_shape},
		{"wrote another dtype", written_dtype},
	};

	(void)state;
	for (size_t k = 0; k < sizeof(lies) / sizeof(lies[0]); k++) {
		struct pb_lane_tensor t[4];
		struct pb_lane_reply p = {.n_outputs = 4, .outputs = t, .written = &written};
		struct pt2box_error e = {.status = PT2BOX_OK};
		const struct pb_lane_request *q;
		struct pb_run r;
		pb_status st;

		open_fake();
		memset(in[0]->info.data, 0x11, 256);
		begin(&r);
		q = fake_claim(&f);
		for (int i = 0; i < 4; i++)
			t[i] = tensor(q, (uint64_t)i * 256, 64);
		t[3] = of_input(q, 0);
		written = (struct pb_lane_written){.input = 0, .copy = tensor(q, 0, 64)};
		lies[k].tell(q, t, &p);
		fake_reply(&f, &p);
		if (!pb_run_step(&r, out, &st, &e) || st != PT2BOX_MODEL_PROTOCOL)
			fail_msg("%s: %s", lies[k].name, pt2box_status_name(st));
		assert_int_equal(e.status, PT2BOX_MODEL_PROTOCOL);
		assert_int_equal(((uint8_t *)in[0]->info.data)[255], 0x11);
		close_fake();
	}
}

/* Bytes that are no reply at all, and every bit of a good one turned: a status or sane tensors,
 * never more. */
static void test_bits(void **state)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	static uint8_t good[65536], bad[65536];
	uint32_t len, flips = 0;

	(void)state;
	open_fake();
	for (uint32_t bit = 0;; bit++) {
		const struct pb_lane_request *q;
		struct pb_run r;
		pb_status st;

		begin(&r);
		q = fake_claim(&f);
		for (int i = 0; i < 4; i++)
			t[i] = tensor(q, (uint64_t)i * 256, 64);
		t[3] = of_input(q, 1);
		len = pb_lane_encode_reply(&p, good, sizeof(good));
		if (bit == len * 8 + len) {
			fake_reply(&f, &p);
			assert_true(pb_run_step(&r, out, &st, NULL));
			free_out();
			break;
		}
		memcpy(bad, good, len);
		if (bit < len * 8)
			bad[bit / 8] ^= (uint8_t)(1 << bit % 8);
		else
			len = bit - len * 8; /* cut */
		pb_lane_reply(&f.worker, f.slot, f.seq, bad, len);
		while (!pb_run_step(&r, out, &st, NULL)) { /* it became WINDOW: that is played on */
			assert_non_null(fake_claim(&f));
			pb_lane_reply(&f.worker, f.slot, f.seq, good, 1);
		}
		if (!st) {
			for (int i = 0; i < 4; i++)
				for (int64_t k = 0;
				     out[i] && k < out[i]->info.numel && out[i]->info.ndim == 1;
				     k++)
					flips += ((uint8_t *)out[i]
							  ->info.data)[k * out[i]->info.strides[0]];
			free_out();
		}
	}
	assert_true(flips + 1 > 0);
	close_fake();
}

/* ---- windows ---- */

static void test_window_fetch(void **state)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply small = {.status = PT2BOX_WINDOW}, p = {.n_outputs = 4, .outputs = t};
	const struct pb_lane_request *q;
	struct pb_run r;
	uint32_t seq;
	pb_status st;

	(void)state;
	open_fake();
	begin(&r);
	q = fake_claim(&f);
	assert_int_equal(q->fetch, 0);
	seq = f.seq;
	small.needed_bytes = 300000;
	fake_reply(&f, &small);
	assert_false(pb_run_step(&r, out, &st, NULL));
	/* The kept outputs are fetched into a larger window, while the old one stays. */
	q = fake_claim(&f);
	assert_int_equal(q->fetch, seq);
	assert_true(q->window_bytes >= 300000);
	assert_true(f.m->lane->down.used >= 300000 + 65536);
	/* Another worker got it: from the start, then. */
	fake_reply(&f, &(struct pb_lane_reply){.status = PT2BOX_NOT_FOUND});
	assert_false(pb_run_step(&r, out, &st, NULL));
	q = fake_claim(&f);
	assert_int_equal(q->fetch, 0);
	for (int i = 0; i < 4; i++)
		t[i] = tensor(q, (uint64_t)i * 256, 64);
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	free_out();
	/* It is remembered. */
	begin(&r);
	q = fake_claim(&f);
	assert_true(q->window_bytes >= 300000);
	fake_reply(&f, &small);
	assert_true(pb_run_step(&r, out, &st, NULL)); /* it has that */
	assert_int_equal(st, PT2BOX_MODEL_PROTOCOL);
	close_fake();
}

/* A worker that wants more and more. */
static void test_window_greed(void **state)
{
	struct pb_lane_reply p = {.status = PT2BOX_WINDOW};
	struct pb_run r;
	pb_status st = PT2BOX_OK;
	int trips = 0;

	(void)state;
	open_fake();
	begin(&r);
	do {
		const struct pb_lane_request *q = fake_claim(&f);

		p.needed_bytes = q->window_bytes + 1;
		fake_reply(&f, &p);
		assert_in_range(++trips, 1, 10);
	} while (!pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_MODEL_PROTOCOL);
	/* More than any lane can hold: the limit is ours, the broker is not even asked. */
	begin(&r);
	assert_non_null(fake_claim(&f));
	p.needed_bytes = 1ull << 40;
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_LIMIT);
	close_fake();
}

static void test_growing(void **state)
{
	struct pb_lane_tensor t[4];
	struct pb_lane_reply wants = {.status = PT2BOX_WINDOW, .needed_bytes = 3u << 20};
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t};
	struct pb_msg_segment seg = {
		.request = 0, .lane = 7, .segment = 3, .down = 1, .bytes = 8u << 20};
	const struct pb_lane_request *q;
	const struct pb_rx *rx;
	struct pb_run r;
	pb_status st;
	int fd = fake_memory(seg.bytes);

	(void)state;
	open_fake();
	begin(&r);
	assert_non_null(fake_claim(&f));
	fake_reply(&f, &wants);
	seg.request = f.c->next_request;
	fake_say(&f, PB_MSG_segment, &seg, &fd, 1);
	assert_false(pb_run_step(&r, out, &st, NULL));
	rx = fake_hear(&f);
	assert_int_equal(rx->row->id, PB_MSG_lane_grow);
	assert_int_equal(rx->msg.lane_grow.down, 1);
	assert_true(rx->msg.lane_grow.bytes >= wants.needed_bytes);
	assert_int_equal(
		pb_lane_map_segment(&f.worker, PB_LANE_WORKER, true, 3, seg.bytes, fd, NULL),
		PT2BOX_OK);
	q = fake_claim(&f);
	assert_int_equal(q->window_segment, 3);
	for (int i = 0; i < 4; i++)
		t[i] = tensor(q, (uint64_t)i << 19, 1 << 17);
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	/* In use it stays, unused for a while it goes back. */
	pthread_mutex_lock(&f.m->lane->lock);
	pb_lane_client_trim(f.m->lane, 0);
	assert_null(fake_hear(&f));
	pthread_mutex_unlock(&f.m->lane->lock);
	assert_int_equal(((char *)out[3]->info.data)[100], 0);
	free_out();
	pthread_mutex_lock(&f.m->lane->lock);
	pb_lane_client_trim(f.m->lane, 1000000000);
	assert_null(fake_hear(&f));
	pb_lane_client_trim(f.m->lane, 0);
	pthread_mutex_unlock(&f.m->lane->lock);
	rx = fake_hear(&f);
	assert_int_equal(rx->row->id, PB_MSG_segment_close);
	assert_int_equal(rx->msg.segment_close.segment, 3);
	close(fd);
	close_fake();
}

/* A broker that lies about segments. */
static void test_bad_segments(void **state)
{
	static const struct pb_msg_segment bad[] = {
		{.lane = 8, .segment = 3, .down = 0, .bytes = 1 << 20},
		{.lane = 7, .segment = 0, .down = 0, .bytes = 1 << 20},
		{.lane = 7, .segment = 3, .down = 1, .bytes = 1 << 20},
		{.lane = 7, .segment = 3, .down = 0, .bytes = 4096},
		{.lane = 7, .segment = 3, .down = 0, .bytes = 1 << 21},
	};
	int fd = fake_memory(1 << 20);

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct pb_msg_segment m = bad[i];
		struct pt2box_tensor *t;
		struct pt2box_error e;
		pb_status st;

		open_fake();
		m.request = f.c->next_request;
		fake_say(&f, PB_MSG_segment, &m, &fd, 1);
		st = pt2box_tensor_alloc(f.m, PT2BOX_UINT8, 1, (int64_t[]){1 << 20}, &t, &e);
		assert_int_equal(st, i == 4 ? PT2BOX_BAD_FD : PT2BOX_PROTOCOL);
		close_fake();
	}
	close(fd);
}

/* ---- inputs ---- */

static void test_written_back(void **state)
{
	float data[32];
	struct pb_lane_tensor t[4];
	struct pb_lane_written w;
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t, .n_written = 1, .written = &w};
	const struct pb_lane_request *q;
	struct pt2box_tensor *lent, *both[2];
	struct pt2box_error e;
	struct pb_run r;
	pb_status st;
	float *at;

	(void)state;
	open_fake();
	for (int i = 0; i < 32; i++)
		data[i] = (float)i;
	/* Every second element of a row of the caller's: only those travel, only those come back.
	 */
	assert_int_equal(pt2box_tensor_lend(PT2BOX_FLOAT32, 1, (int64_t[]){16}, (int64_t[]){2},
					    data, &lent, &e),
			 PT2BOX_OK);
	both[0] = lent;
	both[1] = in[1];
	assert_int_equal(pb_run_init(&r, f.m, both, 2, NULL, &e), PT2BOX_OK);
	assert_int_equal(pb_run_begin(&r, true, &e), PT2BOX_OK);
	q = fake_claim(&f);
	assert_int_equal(q->inputs[0].strides[0], 1);
	at = (float *)(void *)pb_lane_span(&f.worker, false, q->inputs[0].segment,
					   q->inputs[0].offset, 64);
	for (int i = 0; i < 16; i++)
		assert_true(at[i] == (float)(2 * i));
	for (int i = 0; i < 4; i++)
		t[i] = tensor(q, (uint64_t)i * 256, 64);
	w.input = 0;
	w.copy = tensor(q, 2048, 16);
	at = (float *)(void *)pb_lane_span(&f.worker, true, w.copy.segment, w.copy.offset, 64);
	for (int i = 0; i < 16; i++)
		at[i] = 100 + (float)i;
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, &e));
	assert_int_equal(st, PT2BOX_OK);
	for (int i = 0; i < 32; i++)
		assert_true(data[i] == (i % 2 ? (float)i : 100 + (float)(i / 2)));
	free_out();
	pt2box_tensor_free(lent);
	close_fake();
}

enum input_kind { LENT, PROTECTED, LENT_BOXED, IN_LANE, IN_LANE_PROTECTED };

/* Of an input that the model wrote: its views have what the model wrote, and say where the caller has it too, if he has. */
static void check_view_of_written(enum input_kind kind)
{
	float data[16] = {0};
	bool boxed = kind == LENT_BOXED, kept = boxed || kind == PROTECTED || kind == IN_LANE_PROTECTED;
	struct pt2box_tensor *both[2];
	struct pb_lane_tensor t[4];
	struct pb_lane_written w = {.input = 0};
	struct pb_lane_reply p = {.n_outputs = 4, .outputs = t, .n_written = 1, .written = &w};
	const struct pb_lane_request *q;
	struct pb_run r;
	pb_status st;
	float *at, *own;

	open_fake();
	own = kind >= IN_LANE ? in[0]->info.data : data;
	memset(own, 0, 64);
	if (kind >= IN_LANE) {
		both[0] = in[0];
		both[0]->info.sizes[0] = both[0]->info.numel = 16;
	} else {
		assert_int_equal(pt2box_tensor_lend(PT2BOX_FLOAT32, 1, (int64_t[]){16}, NULL, data, &both[0], NULL),
				 PT2BOX_OK);
	}
	both[1] = in[1];
	if (kind == PROTECTED || kind == IN_LANE_PROTECTED)
		pt2box_tensor_protect(both[0]);
	assert_int_equal(pb_run_init(&r, f.m, both, 2, NULL, NULL), PT2BOX_OK);
	if (boxed)
		r.boxed = both;
	assert_int_equal(pb_run_begin(&r, true, NULL), PT2BOX_OK);
	q = fake_claim(&f);
	for (int i = 0; i < 4; i++)
		t[i] = of_input(q, 0);
	t[3].offset += 8;
	t[3].sizes[0] = 3;
	w.copy = tensor(q, 0, 16);
	at = (float *)(void *)pb_lane_span(&f.worker, true, w.copy.segment, w.copy.offset, 64);
	for (int i = 0; i < 16; i++)
		at[i] = 100 + (float)i;
	fake_reply(&f, &p);
	assert_true(pb_run_step(&r, out, &st, NULL));
	assert_int_equal(st, PT2BOX_OK);
	assert_true(((float *)out[0]->info.data)[15] == 115);
	assert_ptr_equal(out[3]->info.data, (char *)out[0]->info.data + 8);
	assert_true(own[15] == (kept ? 0 : 115));
	assert_int_equal(out[0]->info.data == own, kind == IN_LANE);
	expect_input(out[3], kept ? -1 : 0, 8);
	free_out();
	if (boxed)
		in[1] = NULL;
	else if (kind < IN_LANE)
		pt2box_tensor_free(both[0]);
	close_fake();
}

static void test_views_of_written(void **state)
{
	(void)state;
	for (enum input_kind k = LENT; k <= IN_LANE_PROTECTED; k++)
		check_view_of_written(k);
}

/* A worker that never answers keeps its slot and memory, and only those, until it does. */
static void test_abandoned(void **state)
{
	struct pt2box_run_options opt = PT2BOX_RUN_OPTIONS_INIT;
	struct pb_run r;

	(void)state;
	open_fake();
	assert_int_equal(pb_run_init(&r, f.m, in, 2, &opt, NULL), PT2BOX_OK);
	assert_int_equal(pb_run_begin(&r, true, NULL), PT2BOX_OK);
	assert_non_null(fake_claim(&f));
	pb_run_stop(&r, PT2BOX_CANCELLED);
	assert_int_equal(fake_hear(&f)->row->id, PB_MSG_cancel);
	assert_true(pb_lane_is_cancelled(&f.worker, f.slot, f.seq));
	pb_run_abandon(&r);
	pt2box_tensor_free(in[0]);
	pt2box_tensor_free(in[1]);
	in[0] = in[1] = NULL;
	assert_int_equal(f.m->lane->up.used, 512); /* the worker may still read it */
	for (int i = 0; i < 3; i++) {
		pb_status st;

		pthread_mutex_lock(&f.m->lane->lock);
		assert_non_null(pb_lane_client_take_slot(f.m->lane, &st));
		pthread_mutex_unlock(&f.m->lane->lock);
	}
	pthread_mutex_lock(&f.m->lane->lock);
	assert_null(pb_lane_client_take_slot(f.m->lane, &(pb_status){0}));
	fake_reply(&f, &(struct pb_lane_reply){.status = PT2BOX_CANCELLED});
	assert_non_null(pb_lane_client_take_slot(f.m->lane, &(pb_status){0}));
	for (int i = 0; i < 4; i++)
		pb_lane_client_put_slot(f.m->lane, &f.m->lane->slot[i]);
	pthread_mutex_unlock(&f.m->lane->lock);
	close_fake();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_small_are_copies),
		CHECK_TEST(test_large_stay),
		CHECK_TEST(test_aliases_of_inputs),
		CHECK_TEST(test_aliases_of_lent),
		CHECK_TEST(test_lies),
		CHECK_TEST(test_bits),
		CHECK_TEST(test_window_fetch),
		CHECK_TEST(test_window_greed),
		CHECK_TEST(test_growing),
		CHECK_TEST(test_bad_segments),
		CHECK_TEST(test_written_back),
		CHECK_TEST(test_views_of_written),
		CHECK_TEST(test_abandoned),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
