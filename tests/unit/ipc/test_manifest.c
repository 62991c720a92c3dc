/* SPDX-License-Identifier: Apache-2.0 */
/* ldflags: -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc */
/* The manifest: there and back, at its limits, with every bit changed and every cut, without memory, and as a bomb. */
#include <msgpack.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ipc/manifest.h"
#include "tests/lib/check.h"
#include "tests/unit/ipc/samples.h"

static struct sample_manifest sample;

static uint8_t *encode(const struct pb_manifest *m, size_t *len)
{
	struct pt2box_error err;
	uint8_t *data = NULL;

	assert_int_equal(PT2BOX_OK, pb_manifest_encode(m, &data, len, &err));
	return data;
}

/* From an exact allocation; what is accepted can be encoded again, to the same meaning. */
static pb_status decode(const uint8_t *data, size_t len, struct pb_manifest **ret)
{
	uint8_t *exact = malloc(len ? len : 1);
	struct pt2box_error err;
	pb_status st;

	assert_non_null(exact);
	memcpy(exact, data, len);
	*ret = NULL;
	st = pb_manifest_decode(exact, len, ret, &err);
	free(exact);
	if (st) {
		assert_int_equal(PT2BOX_PKG_REJECTED, st);
		assert_true(strlen(err.text) > 0);
		assert_null(*ret);
	}
	return st;
}

static void assert_same_input(const struct pb_sig_input *a, const struct pb_sig_input *b)
{
	assert_string_equal(a->name, b->name);
	assert_int_equal(a->dtype, b->dtype);
	assert_int_equal(a->ndim, b->ndim);
	for (int i = 0; i < a->ndim; i++)
		assert_memory_equal(&a->dims[i], &b->dims[i], sizeof(a->dims[i]));
}

static void assert_same_constant(const struct pb_constant *a, const struct pb_constant *b)
{
	assert_string_equal(a->name, b->name);
	assert_string_equal(a->fqn, b->fqn);
	assert_int_equal(a->dtype, b->dtype);
	assert_int_equal(a->ndim, b->ndim);
	assert_memory_equal(a->sizes, b->sizes, sizeof(a->sizes[0]) * (size_t)a->ndim);
	assert_memory_equal(a->strides, b->strides, sizeof(a->strides[0]) * (size_t)a->ndim);
	assert_true(a->storage_offset == b->storage_offset && a->data_size == b->data_size &&
		    a->blob_offset == b->blob_offset);
	assert_int_equal(a->folded, b->folded);
	assert_int_equal(a->opaque, b->opaque);
	assert_int_equal(a->type, b->type);
}

static void assert_same_lists(const struct pb_manifest *a, const struct pb_manifest *b)
{
	assert_int_equal(a->n_model_names, b->n_model_names);
	for (uint32_t i = 0; i < a->n_model_names; i++)
		assert_string_equal(a->model_names[i], b->model_names[i]);
	assert_int_equal(a->n_metadata, b->n_metadata);
	for (uint32_t i = 0; i < a->n_metadata; i++) {
		assert_string_equal(a->metadata[i].key, b->metadata[i].key);
		assert_string_equal(a->metadata[i].value, b->metadata[i].value);
	}
	assert_int_equal(a->n_inputs, b->n_inputs);
	for (uint32_t i = 0; i < a->n_inputs; i++)
		assert_same_input(&a->inputs[i], &b->inputs[i]);
	assert_int_equal(a->n_constants, b->n_constants);
	for (uint32_t i = 0; i < a->n_constants; i++)
		assert_same_constant(&a->constants[i], &b->constants[i]);
	assert_int_equal(a->n_imports, b->n_imports);
	for (uint32_t i = 0; i < a->n_imports; i++) {
		assert_string_equal(a->imports[i].name, b->imports[i].name);
		assert_int_equal(a->imports[i].state, b->imports[i].state);
		assert_string_equal(a->imports[i].note, b->imports[i].note);
	}
}

static void assert_same(const struct pb_manifest *a, const struct pb_manifest *b)
{
	assert_string_equal(a->model_name, b->model_name);
	assert_string_equal(a->device, b->device);
	assert_string_equal(a->in_spec, b->in_spec);
	assert_string_equal(a->out_spec, b->out_spec);
	assert_same_lists(a, b);
	assert_int_equal(a->n_outputs, b->n_outputs);
	assert_int_equal(a->has_signature, b->has_signature);
	assert_int_equal(a->const_source, b->const_source);
	assert_int_equal(a->const_bytes, b->const_bytes);
	assert_int_equal(a->const_file_offset, b->const_file_offset);
	assert_int_equal(a->mutates, b->mutates);
	assert_int_equal(a->n_absent, b->n_absent);
	assert_int_equal(a->n_proxied, b->n_proxied);
	assert_int_equal(a->so_bytes, b->so_bytes);
	assert_int_equal(a->init_addr, b->init_addr);
	assert_int_equal(a->init_array_addr, b->init_array_addr);
	assert_int_equal(a->init_array_count, b->init_array_count);
	assert_memory_equal(a->so_sha256, b->so_sha256, 32);
	assert_memory_equal(a->pkg_sha256, b->pkg_sha256, 32);
	assert_string_equal(a->cpu_isa, b->cpu_isa);
	assert_string_equal(a->cpu_needs, b->cpu_needs);
	assert_int_equal(a->uses_openmp, b->uses_openmp);
	assert_int_equal(a->openmp_threads, b->openmp_threads);
	assert_int_equal(a->minimal_arrayref, b->minimal_arrayref);
	assert_int_equal(a->needs_lapack, b->needs_lapack);
	assert_int_equal(a->nodes ? a->nodes->n : 0, b->nodes ? b->nodes->n : 0);
	for (uint32_t i = 0; a->nodes && i < a->nodes->n; i++)
		assert_string_equal(a->nodes->list[i].target, b->nodes->list[i].target);
}

static void there_and_back(const struct pb_manifest *m)
{
	struct pb_manifest *back;
	size_t len;
	uint8_t *data = encode(m, &len);

	assert_int_equal(PT2BOX_OK, decode(data, len, &back));
	assert_same(m, back);
	assert_null(pb_manifest_free(back));
	free(data);
}

static void test_there_and_back(void **state)
{
	(void)state;
	sample_manifest(&sample);
	there_and_back(&sample.m);
	assert_null(pb_manifest_free(NULL));
	sample.m.const_source = PB_CONSTS_EMBEDDED_RW;
	sample.m.const_file_offset = sample.m.so_bytes - sample.m.const_bytes;
	there_and_back(&sample.m);
}

static void test_empty(void **state)
{
	const struct pb_manifest m = {.model_name = "", .device = "", .in_spec = "", .out_spec = "", .cpu_isa = "",
				      .cpu_needs = ""};
	const struct pb_manifest nulls = {0};
	struct pb_manifest *back;
	size_t len;
	uint8_t *data;

	(void)state;
	there_and_back(&m);
	data = encode(&nulls, &len); /* texts that were not found are empty ones */
	assert_int_equal(PT2BOX_OK, decode(data, len, &back));
	assert_same(&m, back);
	pb_manifest_free(back);
	free(data);
}

/* As many constants and inputs as may be. */
static void test_many(void **state)
{
	struct pb_constant *constants = calloc(PB_MANIFEST_MAX_TENSORS + 1, sizeof(*constants));
	struct pb_sig_input *inputs = calloc(PB_MANIFEST_MAX_TENSORS, sizeof(*inputs));
	struct pb_manifest *back;
	size_t len;
	uint8_t *data;

	(void)state;
	assert_true(constants && inputs);
	sample_manifest(&sample);
	for (uint32_t i = 0; i < PB_MANIFEST_MAX_TENSORS; i++) {
		constants[i] = sample.constants[0];
		inputs[i] = sample.inputs[1];
	}
	sample.m.constants = constants;
	sample.m.n_constants = PB_MANIFEST_MAX_TENSORS;
	sample.m.inputs = inputs;
	sample.m.n_inputs = PB_MANIFEST_MAX_TENSORS;
	there_and_back(&sample.m);
	free(inputs);
	/* One more: the count itself is refused. */
	constants[PB_MANIFEST_MAX_TENSORS] = sample.constants[1];
	sample_manifest(&sample);
	sample.m.constants = constants;
	sample.m.n_constants = PB_MANIFEST_MAX_TENSORS + 1;
	data = encode(&sample.m, &len);
	assert_int_equal(PT2BOX_PKG_REJECTED, decode(data, len, &back));
	free(data);
	free(constants);
}

static void test_too_long(void **state)
{
	struct pt2box_error err;
	char *text = malloc(PB_MANIFEST_MAX_BYTES + 1);
	uint8_t *data = NULL;
	size_t len;

	(void)state;
	assert_non_null(text);
	memset(text, 'x', PB_MANIFEST_MAX_BYTES);
	text[PB_MANIFEST_MAX_BYTES] = '\0';
	sample_manifest(&sample);
	sample.m.cpu_isa = text;
	assert_int_equal(PT2BOX_LIMIT, pb_manifest_encode(&sample.m, &data, &len, &err));
	assert_null(data);
	free(text);
}

/* ---- hostile bytes ---- */

static void test_every_bit_changed(void **state)
{
	size_t len, accepted = 0;
	uint8_t *data;

	(void)state;
	sample_manifest(&sample);
	data = encode(&sample.m, &len);
	for (size_t at = 0; at < len; at++)
		for (int v = 1; v < 256; v = v < 128 ? v * 2 : 256) {
			struct pb_manifest *m;

			data[at] ^= (uint8_t)v;
			if (decode(data, len, &m) == PT2BOX_OK) {
				there_and_back(m);
				pb_manifest_free(m);
				accepted++;
			}
			data[at] ^= (uint8_t)v;
		}
	/* Text and hashes have many valid values, structure has one. */
	assert_in_range(accepted, len, len * 8 - len);
	free(data);
}

static void test_every_cut(void **state)
{
	struct pb_manifest *m;
	size_t len;
	uint8_t *data, *longer;

	(void)state;
	sample_manifest(&sample);
	data = encode(&sample.m, &len);
	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(PT2BOX_PKG_REJECTED, decode(data, cut, &m));
	longer = malloc(len + 1);
	assert_non_null(longer);
	memcpy(longer, data, len);
	longer[len] = 0xc0;
	assert_int_equal(PT2BOX_PKG_REJECTED, decode(longer, len + 1, &m));
	free(longer);
	free(data);
}

static void test_random_bytes_in_it(void **state)
{
	static const uint8_t heads[] = {0x00, 0x7f, 0x80, 0x90, 0x91, 0x9f, 0xa0, 0xbf, 0xc0, 0xc1, 0xc4,
					0xc6, 0xcb, 0xcc, 0xcf, 0xd0, 0xd3, 0xd9, 0xdb, 0xdc, 0xdd, 0xff};
	uint64_t seed = 7;
	size_t len;
	uint8_t *data, *copy;

	(void)state;
	sample_manifest(&sample);
	data = encode(&sample.m, &len);
	copy = malloc(len);
	assert_non_null(copy);
	for (int i = 0; i < (CHECK_SANITIZED ? 5000 : 50000); i++) {
		const int changes = 1 + (int)(check_rand(&seed) % 4);
		struct pb_manifest *m;

		memcpy(copy, data, len);
		for (int c = 0; c < changes; c++)
			copy[check_rand(&seed) % len] = heads[check_rand(&seed) % sizeof(heads)];
		if (decode(copy, len, &m) == PT2BOX_OK)
			pb_manifest_free(m);
	}
	free(copy);
	free(data);
}

/* Packs @o again with array number @target changed: one item less (-1) or one nil more (1). Returns its old length. */
static void pack_changed(msgpack_packer *pk, const msgpack_object *o, int *left, int change, uint32_t *ret_len)
{
	const bool here = o->type == MSGPACK_OBJECT_ARRAY && (*left)-- == 0;
	uint32_t n;

	if (o->type != MSGPACK_OBJECT_ARRAY) {
		msgpack_pack_object(pk, *o);
		return;
	}
	n = o->via.array.size;
	if (here)
		*ret_len = n;
	msgpack_pack_array(pk, here ? n + (uint32_t)(n ? change : 1) : n);
	for (uint32_t i = 0; i < n - (here && change < 0 && n); i++)
		pack_changed(pk, &o->via.array.ptr[i], left, change, ret_len);
	if (here && (change > 0 || !n))
		msgpack_pack_nil(pk);
}

/* Every array of a manifest one item shorter and one longer. Only lists may be shorter, and those not by half a pair. */
static void test_arrays_of_another_length(void **state)
{
	msgpack_unpacked u;
	size_t len, off = 0;
	uint8_t *data;
	int accepted = 0, arrays = 0;

	(void)state;
	sample_manifest(&sample);
	data = encode(&sample.m, &len);
	msgpack_unpacked_init(&u);
	assert_int_equal(MSGPACK_UNPACK_SUCCESS, msgpack_unpack_next(&u, (const char *)data, len, &off));
	for (int target = 0;; target++) {
		bool there = false;

		for (int change = -1; change <= 1; change += 2) {
			struct pb_manifest *m;
			msgpack_sbuffer b;
			msgpack_packer pk;
			uint32_t n = UINT32_MAX;
			int left = target;

			msgpack_sbuffer_init(&b);
			msgpack_packer_init(&pk, &b, msgpack_sbuffer_write);
			pack_changed(&pk, &u.data, &left, change, &n);
			there = n != UINT32_MAX;
			if (there && decode((uint8_t *)b.data, b.size, &m) == PT2BOX_OK) {
				assert_int_equal(-1, change);
				pb_manifest_free(m);
				accepted++;
			}
			msgpack_sbuffer_destroy(&b);
		}
		if (!there)
			break;
		arrays++;
	}
	/* 1 manifest, 5 lists, 3 inputs and their dimensions, 3 constants and their two, 3 imports */
	assert_int_equal(1 + 5 + 6 + 9 + 3, arrays);
	assert_int_equal(4, accepted); /* names, inputs, constants, imports; metadata are pairs */
	msgpack_unpacked_destroy(&u);
	free(data);
}

/* One field out of its range at a time. */
static void test_ranges(void **state)
{
	struct pb_manifest *m;
	size_t len;

	(void)state;
#define REFUSED(change)                                                                            \
	do {                                                                                       \
		uint8_t *data;                                                                     \
		sample_manifest(&sample);                                                          \
		change;                                                                            \
		data = encode(&sample.m, &len);                                                    \
		if (decode(data, len, &m) == PT2BOX_OK)                                            \
			fail_msg("accepted: %s", #change);                                         \
		free(data);                                                                        \
	} while (0)
	REFUSED(sample.inputs[0].ndim = -2);
	REFUSED(sample.inputs[0].dtype = -2);
	REFUSED(sample.inputs[0].dtype = 256);
	REFUSED(sample.inputs[0].dims[0].lo = -1);
	REFUSED(sample.inputs[0].dims[0].hi = -1);
	REFUSED(sample.inputs[0].dims[0].stride = -2);
	REFUSED(sample.m.n_outputs = PB_MANIFEST_MAX_TENSORS + 1);
	REFUSED(sample.constants[0].dtype = -1);
	REFUSED(sample.constants[0].dtype = 256);
	REFUSED(sample.constants[0].sizes[1] = -1);
	REFUSED(sample.constants[0].strides[0] = -1);
	REFUSED(sample.constants[0].storage_offset = -1);
	REFUSED(sample.constants[0].data_size = (uint64_t)INT64_MAX + 1);
	REFUSED(sample.constants[0].blob_offset = UINT64_MAX);
	REFUSED(sample.constants[0].type = PB_CONST_FOLDED + 1);
	REFUSED(sample.m.const_source = PB_CONSTS_NONE + 1);
	REFUSED(sample.m.const_bytes = UINT64_MAX);
	/* Places that are not in the code, and changes that cannot be. */
	REFUSED(sample.m.const_file_offset = 1);
	REFUSED(sample.m.const_source = PB_CONSTS_EXTERNAL; sample.m.const_file_offset = 1);
	REFUSED(sample.m.const_source = PB_CONSTS_EMBEDDED_RO);
	REFUSED(sample.m.const_source = PB_CONSTS_EMBEDDED_RW; sample.m.mutates = false);
	REFUSED(sample.m.const_source = PB_CONSTS_EMBEDDED_RW; sample.m.const_bytes = sample.m.so_bytes + 1);
	REFUSED(sample.m.const_source = PB_CONSTS_EMBEDDED_RW; sample.m.const_file_offset = INT64_MAX);
	REFUSED(sample.m.const_source = PB_CONSTS_MMAP_SELF;
		sample.m.const_file_offset = sample.m.so_bytes - sample.m.const_bytes + 1);
	REFUSED(sample.m.const_source = PB_CONSTS_NONE; sample.m.const_bytes = 0);
	REFUSED(sample.m.const_source = PB_CONSTS_NONE; sample.m.mutates = false);
	REFUSED(sample.imports[0].state = PB_SHIM_IS_OTHER + 1);
	REFUSED(sample.m.n_absent = PB_MANIFEST_MAX_IMPORTS + 1);
	REFUSED(sample.m.n_proxied = PB_MANIFEST_MAX_IMPORTS + 1);
	REFUSED(sample.m.so_bytes = UINT64_MAX);
	REFUSED(sample.m.init_addr = UINT64_MAX);
	REFUSED(sample.m.init_array_addr = UINT64_MAX);
	REFUSED(sample.m.init_array_count = 65537);
	REFUSED(sample.m.openmp_threads = 65537);
#undef REFUSED
}

static void test_text_is_made_harmless(void **state)
{
	struct pb_manifest *m;
	size_t len;
	uint8_t *data;

	(void)state;
	sample_manifest(&sample);
	sample.m.model_name = "a\x1b]0;title\x07\xff";
	sample.imports[1].note = "line\nline";
	data = encode(&sample.m, &len);
	assert_int_equal(PT2BOX_OK, decode(data, len, &m));
	assert_string_equal("a?]0;title??", m->model_name);
	assert_string_equal("line?line", m->imports[1].note);
	pb_manifest_free(m);
	free(data);
}

static uint64_t cpu_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

/*
 * 8 MiB of nils, of empty arrays, of numbers: the library makes 24 bytes of each byte before anybody can look. The broker
 * decodes, on its one thread: what it refuses must cost it little memory and time.
 */
static void test_bombs(void **state)
{
	static const uint8_t fills[] = {0xc0, 0x90, 0x00, 0xa0, 0x80};
	const long before = check_status_kib("VmPeak");
	uint8_t *data = malloc(PB_MANIFEST_MAX_BYTES + 1);

	(void)state;
	assert_non_null(data);
	for (size_t i = 0; i < sizeof(fills); i++)
		for (int in_list = 0; in_list < 2; in_list++) {
			const uint64_t began = cpu_ms();
			const uint32_t n = PB_MANIFEST_MAX_BYTES - 16;
			uint8_t head[16] = {0xdd, n >> 24, n >> 16 & 255, n >> 8 & 255, n & 255};
			struct pb_manifest *m;

			/* [version, name, [fill...]] the second time */
			if (in_list)
				memcpy(head, (uint8_t[]){0x93, PB_MANIFEST_VERSION, 0xa0, 0xdd, n >> 24, n >> 16 & 255, n >> 8 & 255,
							 n & 255},
				       8);
			memset(data, fills[i], PB_MANIFEST_MAX_BYTES);
			memcpy(data, head, in_list ? 8 : 5);
			assert_int_equal(PT2BOX_PKG_REJECTED,
					 pb_manifest_decode(data, n + (in_list ? 8 : 5), &m, NULL));
			assert_true(cpu_ms() - began < (CHECK_SANITIZED ? 1000 : 150));
		}
	assert_int_equal(PT2BOX_PKG_REJECTED,
			 pb_manifest_decode(data, PB_MANIFEST_MAX_BYTES + 1, &(struct pb_manifest *){NULL}, NULL));
	free(data);
	if (!CHECK_SANITIZED)
		assert_true(check_status_kib("VmPeak") - before < 80 * 1024);
}

/* ---- no memory ---- */

static void test_decode_without_memory(void **state)
{
	size_t len;
	uint8_t *data;

	(void)state;
	sample_manifest(&sample);
	data = encode(&sample.m, &len);
	for (long n = 0; check_fail_at(n); n++) {
		struct pb_manifest *m = NULL;
		const pb_status st = pb_manifest_decode(data, len, &m, NULL);

		assert_int_equal(check_failed() ? PT2BOX_NO_MEMORY : PT2BOX_OK, st);
		assert_int_equal(st == PT2BOX_OK, m != NULL);
		pb_manifest_free(m);
	}
	free(data);
}

/* Long enough that the buffer grows several times; it may fail, but never give back half a manifest. */
static void test_encode_without_memory(void **state)
{
	static char text[100000];

	(void)state;
	memset(text, 'x', sizeof(text) - 1);
	sample_manifest(&sample);
	sample.m.in_spec = text;
	for (long n = 0; check_fail_at(n); n++) {
		struct pb_manifest *m = NULL;
		uint8_t *data = NULL;
		size_t len = 0;
		const pb_status st = pb_manifest_encode(&sample.m, &data, &len, NULL);

		if (check_failed()) {
			assert_int_equal(PT2BOX_NO_MEMORY, st);
			assert_null(data);
			continue;
		}
		check_disarm();
		assert_int_equal(PT2BOX_OK, st);
		assert_int_equal(PT2BOX_OK, pb_manifest_decode(data, len, &m, NULL));
		pb_manifest_free(m);
		free(data);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_there_and_back),
		CHECK_TEST(test_empty),
		CHECK_TEST(test_many),
		CHECK_TEST(test_too_long),
		CHECK_TEST(test_every_bit_changed),
		CHECK_TEST(test_every_cut),
		CHECK_TEST(test_random_bytes_in_it),
		CHECK_TEST(test_arrays_of_another_length),
		CHECK_TEST(test_ranges),
		CHECK_TEST(test_text_is_made_harmless),
		CHECK_TEST(test_bombs),
		CHECK_TEST(test_decode_without_memory),
		CHECK_TEST(test_encode_without_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
