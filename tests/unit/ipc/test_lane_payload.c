/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=calloc */
/* Requests and replies in msgpack: there and back, at their limits, with every bit changed and every cut, hostile counts. */
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/lane.h"
#include "tests/lib/check.h"
#include "tests/unit/ipc/samples.h"

#define BUF_BYTES 65536

static struct pb_lane_decoder *decoder;
static uint8_t buf[BUF_BYTES];

static pb_status decode_request(const uint8_t *data, uint32_t len, const struct pb_lane_request **ret)
{
	uint8_t *exact = malloc(len ? len : 1);
	pb_status st;

	assert_non_null(exact);
	memcpy(exact, data, len);
	st = pb_lane_decode_request(decoder, exact, len, ret);
	free(exact);
	return st;
}

static pb_status decode_reply(const uint8_t *data, uint32_t len, const struct pb_lane_reply **ret)
{
	uint8_t *exact = malloc(len ? len : 1);
	pb_status st;

	assert_non_null(exact);
	memcpy(exact, data, len);
	st = pb_lane_decode_reply(decoder, exact, len, ret);
	free(exact);
	return st;
}

static void assert_same_tensor(const struct pb_lane_tensor *a, const struct pb_lane_tensor *b)
{
	assert_int_equal(a->none, b->none);
	if (a->none)
		return;
	assert_int_equal(a->down, b->down);
	assert_int_equal(a->dtype, b->dtype);
	assert_int_equal(a->ndim, b->ndim);
	assert_int_equal(a->segment, b->segment);
	assert_true(a->offset == b->offset);
	assert_memory_equal(a->sizes, b->sizes, sizeof(a->sizes[0]) * (size_t)a->ndim);
	assert_memory_equal(a->strides, b->strides, sizeof(a->strides[0]) * (size_t)a->ndim);
}

static void assert_same_request(const struct pb_lane_request *a, const struct pb_lane_request *b)
{
	assert_int_equal(a->window_segment, b->window_segment);
	assert_true(a->window_offset == b->window_offset && a->window_bytes == b->window_bytes);
	assert_int_equal(a->fetch, b->fetch);
	assert_int_equal(a->seeded, b->seeded);
	assert_true(a->seed == b->seed);
	assert_int_equal(a->n_inputs, b->n_inputs);
	for (uint32_t i = 0; i < a->n_inputs; i++)
		assert_same_tensor(&a->inputs[i], &b->inputs[i]);
}

static void assert_same_reply(const struct pb_lane_reply *a, const struct pb_lane_reply *b)
{
	assert_int_equal(a->status, b->status);
	assert_int_equal(a->signal, b->signal);
	assert_int_equal(a->worker, b->worker);
	assert_true(a->needed_bytes == b->needed_bytes && a->run_ns == b->run_ns);
	assert_string_equal(a->text, b->text);
	assert_int_equal(a->n_outputs, b->n_outputs);
	for (uint32_t i = 0; i < a->n_outputs; i++)
		assert_same_tensor(&a->outputs[i], &b->outputs[i]);
	assert_int_equal(a->n_written, b->n_written);
	for (uint32_t i = 0; i < a->n_written; i++) {
		assert_int_equal(a->written[i].input, b->written[i].input);
		assert_same_tensor(&a->written[i].copy, &b->written[i].copy);
	}
}

static int new_decoder(void **state)
{
	(void)state;
	decoder = pb_lane_decoder_new(8);
	return decoder ? 0 : -1;
}

static int free_decoder(void **state)
{
	(void)state;
	decoder = pb_lane_decoder_free(decoder);
	return decoder ? -1 : 0;
}

/* ---- there and back ---- */

static void test_there_and_back(void **state)
{
	const struct pb_lane_request *q;
	const struct pb_lane_reply *p;
	struct sample_lane s;
	uint32_t len;

	(void)state;
	sample_lane(&s);
	/* Again and again: a decoder reuses its memory. */
	for (int i = 0; i < 1000; i++) {
		len = pb_lane_encode_request(&s.request, buf, sizeof(buf));
		assert_int_equal(PT2BOX_OK, decode_request(buf, len, &q));
		assert_same_request(&s.request, q);
		len = pb_lane_encode_reply(&s.reply, buf, sizeof(buf));
		assert_int_equal(PT2BOX_OK, decode_reply(buf, len, &p));
		assert_same_reply(&s.reply, p);
	}
}

static void test_nothing_in_it(void **state)
{
	const struct pb_lane_request none = {0}, *q;
	const struct pb_lane_reply zero = {0}, *p;
	uint32_t len = pb_lane_encode_request(&none, buf, sizeof(buf));

	(void)state;
	assert_int_equal(PT2BOX_OK, decode_request(buf, len, &q));
	assert_same_request(&none, q);
	len = pb_lane_encode_reply(&zero, buf, sizeof(buf));
	assert_int_equal(PT2BOX_OK, decode_reply(buf, len, &p));
	assert_same_reply(&zero, p);
}

static void test_limits_of_numbers(void **state)
{
	struct pb_lane_tensor t = {.dtype = PT2BOX_UINT8, .ndim = 1, .segment = UINT32_MAX, .offset = INT64_MAX,
				   .sizes = {INT64_MAX}, .strides = {1}};
	struct pb_lane_request r = {.window_segment = UINT32_MAX, .window_offset = INT64_MAX,
				    .window_bytes = INT64_MAX, .fetch = UINT32_MAX, .n_inputs = 1, .inputs = &t};
	struct pb_lane_reply y = {.status = 255, .signal = 255, .worker = PB_WORKERS_MAX - 1,
				  .needed_bytes = (uint64_t)1 << 40, .run_ns = UINT64_MAX};
	const struct pb_lane_request *q;
	const struct pb_lane_reply *p;
	uint32_t len;

	(void)state;
	assert_int_equal(PT2BOX_OK, decode_request(buf, pb_lane_encode_request(&r, buf, sizeof(buf)), &q));
	assert_same_request(&r, q);
	r.seeded = true;
	r.seed = UINT64_MAX;
	assert_int_equal(PT2BOX_OK, decode_request(buf, pb_lane_encode_request(&r, buf, sizeof(buf)), &q));
	assert_same_request(&r, q);
	len = pb_lane_encode_request(&r, buf, sizeof(buf));
	buf[0]--; /* says that there is no seed, and there it is */
	assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, len, &q));
	r.seeded = false;
	memset(y.text, 'x', sizeof(y.text) - 1);
	assert_int_equal(PT2BOX_OK, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	assert_same_reply(&y, p);
#define REFUSED_REQUEST(change)                                                                    \
	do {                                                                                       \
		const struct pb_lane_request keep_r = r;                                           \
		const struct pb_lane_tensor keep_t = t;                                            \
		change;                                                                            \
		if (decode_request(buf, pb_lane_encode_request(&r, buf, sizeof(buf)), &q) == 0)    \
			fail_msg("accepted: %s", #change);                                         \
		r = keep_r;                                                                        \
		t = keep_t;                                                                        \
	} while (0)
	REFUSED_REQUEST(r.window_offset = (uint64_t)INT64_MAX + 1);
	REFUSED_REQUEST(r.window_bytes = UINT64_MAX);
	REFUSED_REQUEST(t.none = true); /* an input that is not there */
	REFUSED_REQUEST(t.dtype = -1);
	REFUSED_REQUEST(t.dtype = 12); /* a number that is no type */
	REFUSED_REQUEST(t.dtype = 256);
	REFUSED_REQUEST(t.offset = (uint64_t)INT64_MAX + 1);
	REFUSED_REQUEST(t.sizes[0] = -1);
	REFUSED_REQUEST(t.strides[0] = -1);
	REFUSED_REQUEST(t.strides[0] = INT64_MIN);
	REFUSED_REQUEST(t.strides[0] = 4); /* an extent over 64 bits */
	REFUSED_REQUEST(t.dtype = PT2BOX_COMPLEX128);
#undef REFUSED_REQUEST
#define REFUSED_REPLY(change)                                                                      \
	do {                                                                                       \
		const struct pb_lane_reply keep = y;                                               \
		change;                                                                            \
		if (decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p) == 0)        \
			fail_msg("accepted: %s", #change);                                         \
		y = keep;                                                                          \
	} while (0)
	REFUSED_REPLY(y.status = 256);
	REFUSED_REPLY(y.signal = -1);
	REFUSED_REPLY(y.signal = 256);
	REFUSED_REPLY(y.worker = PB_WORKERS_MAX);
	REFUSED_REPLY(y.needed_bytes = ((uint64_t)1 << 40) + 1);
#undef REFUSED_REPLY
}

/* What does not fit is not sent: never a cut message. */
static void test_no_room(void **state)
{
	struct sample_lane s;
	uint32_t len;

	(void)state;
	sample_lane(&s);
	len = pb_lane_encode_request(&s.request, buf, sizeof(buf));
	assert_true(len > 0);
	assert_int_equal(len, pb_lane_encode_request(&s.request, buf, len));
	for (uint32_t cap = 0; cap < len; cap++)
		assert_int_equal(0, pb_lane_encode_request(&s.request, buf, cap));
	len = pb_lane_encode_reply(&s.reply, buf, sizeof(buf));
	assert_int_equal(len, pb_lane_encode_reply(&s.reply, buf, len));
	for (uint32_t cap = 0; cap < len; cap++)
		assert_int_equal(0, pb_lane_encode_reply(&s.reply, buf, cap));
}

/* The slots that the broker makes hold what a model of so many tensors can need: any rank, sizes up to 32 bits. */
static void test_slots_are_large_enough(void **state)
{
	static const uint32_t counts[][2] = {{0, 0}, {1, 1}, {1, 40}, {40, 1}, {100, 100}};

	(void)state;
	for (size_t c = 0; c < sizeof(counts) / sizeof(counts[0]); c++) {
		const uint32_t n_in = counts[c][0], n_out = counts[c][1];
		struct pb_lane_tensor *t = calloc(n_in + n_out + 1, sizeof(*t));
		struct pb_lane_written *w = calloc(n_in + 1, sizeof(*w));
		struct pb_lane_request q = {UINT32_MAX, INT64_MAX, INT64_MAX, UINT32_MAX, n_in, t, true, UINT64_MAX};
		struct pb_lane_reply p = {255, 255, 63, (uint64_t)1 << 40, UINT64_MAX, "", n_out, t, n_in, w};

		assert_true(t && w);
		memset(p.text, 'x', sizeof(p.text) - 1);
		for (uint32_t i = 0; i < n_in + n_out; i++) {
			t[i] = sample_tensor(PT2BOX_MAX_DIMS, 1, true);
			t[i].segment = UINT32_MAX;
			t[i].offset = INT64_MAX;
			for (int d = 0; d < PT2BOX_MAX_DIMS; d++)
				t[i].sizes[d] = t[i].strides[d] = UINT32_MAX;
		}
		for (uint32_t i = 0; i < n_in; i++)
			w[i] = (struct pb_lane_written){i, t[0]};
		assert_true(pb_lane_slot_bytes(n_in, n_out) <= 65536);
		assert_true(pb_lane_encode_request(&q, buf, pb_lane_slot_bytes(n_in, n_out)) > 0);
		assert_true(pb_lane_encode_reply(&p, buf, pb_lane_slot_bytes(n_in, n_out)) > 0);
		free(t);
		free(w);
	}
	assert_int_equal(65536, pb_lane_slot_bytes(UINT32_MAX, UINT32_MAX));
}

/* ---- hostile bytes ---- */

static void check_request(const uint8_t *data, uint32_t len)
{
	const struct pb_lane_request *q;
	uint8_t again[BUF_BYTES];

	if (decode_request(data, len, &q))
		return;
	assert_true(q->n_inputs <= 8);
	for (uint32_t i = 0; i < q->n_inputs; i++)
		assert_in_range(q->inputs[i].ndim, 0, PT2BOX_MAX_DIMS);
	assert_true(pb_lane_encode_request(q, again, sizeof(again)) > 0);
}

static void check_reply(const uint8_t *data, uint32_t len)
{
	const struct pb_lane_reply *p;
	uint8_t again[BUF_BYTES];

	if (decode_reply(data, len, &p))
		return;
	assert_true(p->n_outputs <= 8 && p->n_written <= 8);
	assert_true(memchr(p->text, '\0', sizeof(p->text)) != NULL);
	assert_true(pb_lane_encode_reply(p, again, sizeof(again)) > 0);
}

static void test_every_byte_changed(void **state)
{
	struct sample_lane s;
	uint32_t len;

	(void)state;
	sample_lane(&s);
	len = pb_lane_encode_request(&s.request, buf, sizeof(buf));
	for (uint32_t at = 0; at < len; at++)
		for (int v = 1; v < 256; v++) {
			buf[at] ^= (uint8_t)v;
			check_request(buf, len);
			buf[at] ^= (uint8_t)v;
		}
	len = pb_lane_encode_reply(&s.reply, buf, sizeof(buf));
	for (uint32_t at = 0; at < len; at++)
		for (int v = 1; v < 256; v++) {
			buf[at] ^= (uint8_t)v;
			check_reply(buf, len);
			buf[at] ^= (uint8_t)v;
		}
}

static void test_every_cut_and_a_byte_too_many(void **state)
{
	const struct pb_lane_request *q;
	const struct pb_lane_reply *p;
	struct sample_lane s;
	uint32_t len;

	(void)state;
	sample_lane(&s);
	len = pb_lane_encode_request(&s.request, buf, sizeof(buf));
	for (uint32_t cut = 0; cut < len; cut++)
		assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, cut, &q));
	buf[len] = 0xc0;
	assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, len + 1, &q));
	assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, len, &p)); /* a request is no reply */
	len = pb_lane_encode_reply(&s.reply, buf, sizeof(buf));
	for (uint32_t cut = 0; cut < len; cut++)
		assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, cut, &p));
	buf[len] = 0xc0;
	assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, len + 1, &p));
	assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, len, &q));
}

/* More tensors than the model has, more dimensions than there may be, two counts that differ. */
static void test_hostile_counts(void **state)
{
	const struct pb_lane_request *q;
	const struct pb_lane_reply *p;
	struct pb_lane_tensor t[9];
	struct pb_lane_written w[9];
	struct pb_lane_request r = {.n_inputs = 8, .inputs = t};
	struct pb_lane_reply y = {.n_outputs = 8, .outputs = t, .n_written = 8, .written = w};
	msgpack_sbuffer b;
	msgpack_packer pk;

	(void)state;
	for (int i = 0; i < 9; i++) {
		t[i] = sample_tensor(1, 2, false);
		w[i] = (struct pb_lane_written){0, t[i]};
	}
	assert_int_equal(PT2BOX_OK, decode_request(buf, pb_lane_encode_request(&r, buf, sizeof(buf)), &q));
	assert_int_equal(PT2BOX_OK, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	r.n_inputs = 9;
	assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, pb_lane_encode_request(&r, buf, sizeof(buf)), &q));
	y.n_outputs = 9;
	assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	y.n_outputs = 8;
	y.n_written = 9;
	assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	y.n_written = 1;
	w[0].input = PB_LANE_TENSORS_MAX + 1;
	assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	w[0] = (struct pb_lane_written){0, {.none = true}};
	assert_int_equal(PT2BOX_PROTOCOL, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	/* [0, 0, 0, 0, [[6, 0, 0, 0, [n sizes], [m strides]]]] */
	for (uint32_t n = 0; n < 20; n++)
		for (uint32_t m = 0; m < 20; m++) {
			msgpack_sbuffer_init(&b);
			msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
			msgpack_pack_array(&pk, 5);
			for (int i = 0; i < 4; i++)
				msgpack_pack_int(&pk, 0);
			msgpack_pack_array(&pk, 1);
			msgpack_pack_array(&pk, 6);
			msgpack_pack_int(&pk, PT2BOX_FLOAT32);
			for (int i = 0; i < 3; i++)
				msgpack_pack_int(&pk, 0);
			msgpack_pack_array(&pk, n);
			for (uint32_t i = 0; i < n; i++)
				msgpack_pack_int(&pk, 1);
			msgpack_pack_array(&pk, m);
			for (uint32_t i = 0; i < m; i++)
				msgpack_pack_int(&pk, 1);
			assert_int_equal(n == m && n <= PT2BOX_MAX_DIMS ? PT2BOX_OK : PT2BOX_PROTOCOL,
					 decode_request((uint8_t *)b.data, (uint32_t)b.size, &q));
			msgpack_sbuffer_destroy(&b);
		}
}

static void test_bombs(void **state)
{
	static const struct {
		uint32_t len;
		uint8_t bytes[16];
	} bombs[] = {
		{5, {0xdd, 0xff, 0xff, 0xff, 0xff}},
		{10, {0x95, 0, 0, 0, 0, 0xdd, 0xff, 0xff, 0xff, 0xff}},
		{8, {0x95, 0, 0, 0, 0, 0xdc, 0xff, 0xff}},
		{6, {0x95, 0, 0, 0, 0, 0x80}},
		{6, {0x95, 0, 0, 0, 0, 0xc0}},
		{6, {0x95, 0, 0, 0, 0, 0xa0}},
		{7, {0x95, 0, 0, 0, 0xd4, 0, 0}},
		{1, {0x95}},
		{9, {0x98, 0, 0, 0, 0, 0, 0xa0, 0x90, 0xc0}},
		{11, {0x98, 0, 0, 0, 0, 0, 0xdb, 0xff, 0xff, 0xff, 0xff}},
		{13, {0x98, 0, 0, 0, 0, 0, 0xa0, 0x90, 0xdd, 0xff, 0xff, 0xff, 0xff}},
	};
	const struct pb_lane_request *q;
	const struct pb_lane_reply *p;

	(void)state;
	for (size_t i = 0; i < sizeof(bombs) / sizeof(bombs[0]); i++) {
		assert_int_equal(PT2BOX_PROTOCOL, decode_request(bombs[i].bytes, bombs[i].len, &q));
		assert_int_equal(PT2BOX_PROTOCOL, decode_reply(bombs[i].bytes, bombs[i].len, &p));
	}
	memset(buf, 0x91, sizeof(buf));
	assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, sizeof(buf), &q));
	memset(buf, 0xc0, sizeof(buf));
	memcpy(buf, "\xdd\x00\x00\xff\xfb", 5);
	for (int i = 0; i < 1000; i++) /* 1.6 MB each: the memory of one is used for the next */
		assert_int_equal(PT2BOX_PROTOCOL, decode_request(buf, sizeof(buf), &q));
	if (!CHECK_SANITIZED)
		assert_in_range(check_status_kib("VmPeak"), 1, 256 * 1024);
}

static void test_text_is_made_harmless(void **state)
{
	struct pb_lane_reply y = {.text = "a\x1b[2J\n\xff"};
	const struct pb_lane_reply *p;
	msgpack_sbuffer b;
	msgpack_packer pk;

	(void)state;
	assert_int_equal(PT2BOX_OK, decode_reply(buf, pb_lane_encode_reply(&y, buf, sizeof(buf)), &p));
	assert_string_equal("a?[2J??", p->text);
	/* A longer text than the struct holds is cut, whatever its length says. */
	msgpack_sbuffer_init(&b);
	msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
	msgpack_pack_array(&pk, 8);
	for (int i = 0; i < 5; i++)
		msgpack_pack_int(&pk, 0);
	memset(buf, 't', 2000);
	msgpack_pack_str(&pk, 2000);
	msgpack_pack_str_body(&pk, buf, 2000);
	msgpack_pack_array(&pk, 0);
	msgpack_pack_array(&pk, 0);
	assert_int_equal(PT2BOX_OK, decode_reply((uint8_t *)b.data, (uint32_t)b.size, &p));
	assert_int_equal(sizeof(p->text) - 1, strlen(p->text));
	msgpack_sbuffer_destroy(&b);
}

static void test_without_memory(void **state)
{
	(void)state;
	for (long n = 0; check_fail_at(n); n++) {
		struct pb_lane_decoder *d = pb_lane_decoder_new(4);
		const struct pb_lane_request *q;
		struct sample_lane s;
		uint32_t len;

		if (!d) {
			assert_true(check_failed());
			continue;
		}
		sample_lane(&s);
		len = pb_lane_encode_request(&s.request, buf, sizeof(buf));
		assert_int_equal(PT2BOX_OK, pb_lane_decode_request(d, buf, len, &q));
		d = pb_lane_decoder_free(d);
	}
	assert_null(pb_lane_decoder_free(NULL));
	check_disarm();
	decoder = pb_lane_decoder_free(decoder);
	decoder = pb_lane_decoder_new(0); /* a model without tensors */
	assert_non_null(decoder);
}

int main(void)
{
#define WITH_DECODER(f) cmocka_unit_test_setup_teardown(f, new_decoder, free_decoder)
	const struct CMUnitTest tests[] = {
		WITH_DECODER(test_there_and_back),
		WITH_DECODER(test_nothing_in_it),
		WITH_DECODER(test_limits_of_numbers),
		WITH_DECODER(test_no_room),
		WITH_DECODER(test_slots_are_large_enough),
		WITH_DECODER(test_every_byte_changed),
		WITH_DECODER(test_every_cut_and_a_byte_too_many),
		WITH_DECODER(test_hostile_counts),
		WITH_DECODER(test_bombs),
		WITH_DECODER(test_text_is_made_harmless),
		WITH_DECODER(test_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
