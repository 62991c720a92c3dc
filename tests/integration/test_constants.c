/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of constants against the real programs: what PyTorch computes after each kind of update,
 * on each kind of package; what is refused, and that nothing has changed then; what is read back;
 * two buffers; processes that die. Updates while runs flow are in test_constants_load.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/lib/broker.h"
#include "tests/lib/loaded.h"
#include "tests/lib/tensors.h"

static const char *const fixtures[] = {"mlp",	 "extconst", "convs",	"attn",
				       "lstm",	 "rtfold",   "extfold", "blobconst",
				       "mutbuf", "extmut",   "blobmut"};
#define N_FIXTURES (sizeof(fixtures) / sizeof(fixtures[0]))

enum way { FROM_MEMORY, FROM_FILE, FROM_MEMFD, N_WAYS };

static int open_read(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

/* The same bytes in a memfd. */
static int memfd_of(const char *path)
{
	int from = open_read(path), fd = memfd_create("constants", MFD_CLOEXEC);
	char buf[65536];
	ssize_t n;

	while ((n = read(from, buf, sizeof(buf))) > 0)
		assert_int_equal(write(fd, buf, (size_t)n), n);
	close(from);
	return fd;
}

static enum pt2box_status update_file(struct pt2box_model *m, const char *path, uint32_t flags,
				      enum way way)
{
	struct test_constants k;
	enum pt2box_status st;
	int fd;

	if (way == FROM_MEMORY) {
		test_constants_read(&k, path);
		st = pt2box_load_constants(m, k.list, k.n, flags, &test_error);
		test_constants_free(&k);
		return st;
	}
	fd = way == FROM_FILE ? open_read(path) : memfd_of(path);
	st = pt2box_load_constants_fd(m, fd, flags, &test_error);
	close(fd);
	return st;
}

/* ---- updates give what PyTorch gives ---- */

static void run_times(struct loaded *l, int n)
{
	for (int i = 0; i < n; i++) {
		OK(loaded_run(l, l->m));
		loaded_free(l);
	}
}

static void check_update(const char *name, const struct test_update *u, enum way way)
{
	const bool swap = strcmp(u->kind, "swap") == 0;
	struct loaded l;

	loaded_open(&l, NULL, name, 0);
	run_times(&l, u->runs_before);
	OK(update_file(l.m, u->constants,
		       (swap ? PT2BOX_CONSTANTS_INACTIVE : 0u) |
			       (strcmp(u->kind, "full") == 0 ? PT2BOX_CONSTANTS_FULL : 0u),
		       way));
	if (swap) {
		run_times(&l, 1);
		OK(pt2box_swap_constants(l.m, &test_error));
	}
	loaded_gives(&l, l.m, u->out);
	loaded_close(&l);
}

static void test_updates(void **state)
{
	struct test_update u;
	size_t n = 0;

	(void)state;
	for (size_t f = 0; f < N_FIXTURES; f++)
		for (size_t i = 0; test_update_get(fixtures[f], i, &u); i++, n++)
			check_update(fixtures[f], &u, (enum way)(n % N_WAYS));
	assert_int_equal(n, 3 * N_FIXTURES);
}

/* Every worker has the update, not only the one that answers first. */
static void test_every_worker(void **state)
{
	struct test_update u;
	struct pt2box_run *run[32];
	struct loaded l;

	(void)state;
	assert_true(test_update_get("attn", 0, &u));
	loaded_open(&l, NULL, "attn", 4);
	OK(update_file(l.m, u.constants, PT2BOX_CONSTANTS_FULL, FROM_FILE));
	for (int round = 0; round < 4; round++) {
		for (int i = 0; i < 32; i++)
			OK(pt2box_run_start(l.m, l.t, l.in.n, NULL, &run[i], &test_error));
		for (int i = 0; i < 32; i++) {
			OK(pt2box_run_finish(run[i], l.out, &test_error));
			loaded_free(&l);
		}
		for (int i = 0; i < 8; i++)
			loaded_gives(&l, l.m, u.out);
	}
	loaded_close(&l);
}

/* ---- what is read back ---- */

static void extract(struct pt2box_model *m, int inactive, struct pt2box_constant **list, size_t *n)
{
	*list = NULL;
	*n = 77;
	OK(pt2box_extract_constants(m, inactive, list, n, &test_error));
}

/* All that the package declares, but for what it computes itself, under its name and in its form.
 */
static void assert_declared(struct pt2box_model *m, const struct pt2box_constant *list, size_t n)
{
	struct pt2box_constant_info info;
	size_t expected = 0;

	for (size_t i = 0; pt2box_model_constant(m, i, &info); i++) {
		const struct pt2box_tensor_info *t;
		const struct pt2box_tensor *found = test_constants_find(list, n, info.fqn);

		if (info.folded) {
			assert_null(found);
			continue;
		}
		assert_non_null(found);
		t = pt2box_tensor_get_info(found);
		assert_int_equal(t->dtype, info.dtype);
		assert_int_equal(t->ndim, info.ndim);
		assert_int_equal(t->readonly, 1);
		assert_memory_equal(t->sizes, info.sizes, (size_t)info.ndim * sizeof(int64_t));
		assert_memory_equal(t->strides, info.strides, (size_t)info.ndim * sizeof(int64_t));
		expected++;
	}
	assert_int_equal(n, expected);
}

/* What is in @given has its value; what is not has the one of @before. */
static void assert_values(const struct pt2box_constant *list, size_t n,
			  const struct pt2box_constant *given, size_t n_given,
			  const struct pt2box_constant *before, size_t n_before)
{
	for (size_t i = 0; i < n; i++) {
		const struct pt2box_tensor *want =
			test_constants_find(given, n_given, list[i].name);

		if (!want)
			want = test_constants_find(before, n_before, list[i].name);
		if (!want || !test_tensors_same(list[i].tensor, want))
			fail_msg("%s is not what it should be", list[i].name);
	}
}

static void check_extract(const char *name)
{
	struct pt2box_constant *first, *then, *none;
	size_t n_first, n_then, n_none;
	struct test_constants k, all = {.n = 0};
	struct test_update u;
	struct loaded l;

	assert_true(test_update_get(name, 1, &u));
	test_constants_read(&k, u.constants);
	loaded_open(&l, NULL, name, 0);
	extract(l.m, 0, &first, &n_first);
	assert_declared(l.m, first, n_first);
	if (l.f.constants[0])
		test_constants_read(&all, l.f.constants);
	assert_values(first, n_first, all.list, all.n, first, n_first);
	extract(l.m, 1, &none, &n_none);
	assert_int_equal(n_none, 0);
	pt2box_free_constants(none, n_none);
	OK(pt2box_load_constants(l.m, k.list, k.n, 0, &test_error));
	extract(l.m, 0, &then, &n_then);
	assert_declared(l.m, then, n_then);
	assert_values(then, n_then, k.list, k.n, first, n_first);
	pt2box_free_constants(first, n_first);
	test_constants_free(&k);
	loaded_close(&l);
	/* A copy that lives on without model, connection and broker. */
	test_constants_read(&k, u.constants);
	for (size_t i = 0; i < k.n; i++)
		assert_true(test_tensors_same(test_constants_find(then, n_then, k.list[i].name),
					      k.list[i].tensor));
	pt2box_free_constants(then, n_then);
	test_constants_free(&k);
	test_constants_free(&all);
}

static void test_extract(void **state)
{
	(void)state;
	for (size_t f = 0; f < N_FIXTURES; f++)
		check_extract(fixtures[f]);
}

/* A state is read as it is now, and what was read does not change with it. */
static void check_extract_state(const char *name)
{
	struct pt2box_constant *a, *b;
	const struct pt2box_tensor_info *x, *y;
	size_t n_a, n_b;
	struct loaded l;

	loaded_open(&l, NULL, name, 0);
	run_times(&l, 3);
	extract(l.m, 0, &a, &n_a);
	run_times(&l, 2);
	extract(l.m, 0, &b, &n_b);
	x = pt2box_tensor_get_info(test_constants_find(a, n_a, "count"));
	y = pt2box_tensor_get_info(test_constants_find(b, n_b, "count"));
	for (int64_t i = 0; i < x->numel; i++) {
		assert_true(fixture_at(x, i) == 3);
		assert_true(fixture_at(y, i) == 5);
	}
	pt2box_free_constants(b, n_b);
	/* Given back, it is the state that the next run begins with. */
	OK(pt2box_load_constants(l.m, a, n_a, PT2BOX_CONSTANTS_FULL, &test_error));
	pt2box_free_constants(a, n_a);
	run_times(&l, 1);
	extract(l.m, 0, &a, &n_a);
	assert_true(fixture_at(pt2box_tensor_get_info(test_constants_find(a, n_a, "count")), 0) ==
		    4);
	pt2box_free_constants(a, n_a);
	loaded_close(&l);
}

static void test_extract_state(void **state)
{
	(void)state;
	check_extract_state("mutbuf");
	check_extract_state("extmut");
	check_extract_state("blobmut");
}

/* ---- strides ---- */

/* The same values with the first dimension innermost, holes between the elements and NaN in them.
 */
static struct pt2box_tensor *turned(const struct pt2box_tensor *t, float **ret_data)
{
	const struct pt2box_tensor_info *f = pt2box_tensor_get_info(t);
	int64_t strides[PT2BOX_MAX_DIMS], at = 2;
	struct pt2box_tensor *ret;

	for (int32_t d = 0; d < f->ndim; at *= f->sizes[d++])
		strides[d] = at;
	*ret_data = malloc((size_t)at * sizeof(float));
	memset(*ret_data, 0xff, (size_t)at * sizeof(float));
	for (int64_t i = 0; i < f->numel; i++) {
		int64_t rest = i, to = 0, from = 0;

		for (int32_t d = f->ndim - 1; d >= 0; rest /= f->sizes[d--]) {
			to += rest % f->sizes[d] * strides[d];
			from += rest % f->sizes[d] * f->strides[d];
		}
		(*ret_data)[to] = ((const float *)f->data)[from];
	}
	OK(pt2box_tensor_lend(f->dtype, f->ndim, f->sizes, strides, *ret_data, &ret, &test_error));
	return ret;
}

static void check_strided(const char *name)
{
	struct test_constants k;
	struct test_update u;
	struct pt2box_constant *got, list[TEST_ARRAYS_MAX];
	float *data[TEST_ARRAYS_MAX];
	struct loaded l;
	size_t n;

	assert_true(test_update_get(name, 0, &u));
	test_constants_read(&k, u.constants);
	loaded_open(&l, NULL, name, 0);
	run_times(&l, u.runs_before);
	for (size_t i = 0; i < k.n; i++)
		list[i] = (struct pt2box_constant){k.list[i].name,
						   turned(k.list[i].tensor, &data[i])};
	OK(pt2box_load_constants(l.m, list, k.n, PT2BOX_CONSTANTS_FULL, &test_error));
	/* The caller's memory is not looked at again. */
	for (size_t i = 0; i < k.n; i++) {
		pt2box_tensor_free(list[i].tensor);
		free(data[i]);
	}
	extract(l.m, 0, &got, &n);
	assert_values(got, n, k.list, k.n, NULL, 0);
	pt2box_free_constants(got, n);
	loaded_gives(&l, l.m, u.out);
	test_constants_free(&k);
	loaded_close(&l);
}

static void test_strided(void **state)
{
	(void)state;
	check_strided("mlp");
	check_strided("convs");
	check_strided("extmut");
	check_strided("extfold");
}

/* Tensors of the model's own lane: inputs, and outputs of a run. */
static void test_from_the_lane(void **state)
{
	struct test_constants k;
	struct test_update u;
	struct pt2box_tensor *t[TEST_ARRAYS_MAX];
	struct loaded l;

	(void)state;
	assert_true(test_update_get("mlp", 0, &u));
	test_constants_read(&k, u.constants);
	loaded_open(&l, NULL, "mlp", 0);
	fixture_tensors(l.m, &k.a, t);
	for (size_t i = 0; i < k.n; i++) {
		pt2box_tensor_free(k.list[i].tensor);
		k.list[i].tensor = t[i];
	}
	OK(pt2box_load_constants(l.m, k.list, k.n, PT2BOX_CONSTANTS_FULL, &test_error));
	test_constants_free(&k);
	loaded_gives(&l, l.m, u.out);
	loaded_close(&l);
}

/* ---- what is refused ---- */

struct before {
	struct pt2box_constant *list, *inactive;
	size_t n, n_inactive, bytes;
	uint8_t *bits;
};

static void remember(struct loaded *l, struct before *b)
{
	extract(l->m, 0, &b->list, &b->n);
	extract(l->m, 1, &b->inactive, &b->n_inactive);
	b->bits = loaded_bits(l, &b->bytes);
}

/* Nothing has changed: same bits of all constants, same bits out. */
static void assert_as_before(struct loaded *l, const struct before *b)
{
	struct before now;

	remember(l, &now);
	assert_int_equal(now.n, b->n);
	assert_values(now.list, now.n, b->list, b->n, NULL, 0);
	assert_int_equal(now.n_inactive, b->n_inactive);
	assert_values(now.inactive, now.n_inactive, b->inactive, b->n_inactive, NULL, 0);
	assert_int_equal(now.bytes, b->bytes);
	assert_memory_equal(now.bits, b->bits, b->bytes);
	pt2box_free_constants(now.list, now.n);
	pt2box_free_constants(now.inactive, now.n_inactive);
	free(now.bits);
}

static void forget(struct before *b)
{
	pt2box_free_constants(b->list, b->n);
	pt2box_free_constants(b->inactive, b->n_inactive);
	free(b->bits);
}

/* One constant under a name, in a form: all zeros. */
static enum pt2box_status give(struct pt2box_model *m, const char *name, int32_t dtype,
			       int32_t ndim, const int64_t *sizes, const int64_t *strides,
			       uint32_t flags)
{
	static uint8_t zeros[1 << 20];
	struct pt2box_constant k = {.name = name};
	enum pt2box_status st;

	OK(pt2box_tensor_lend(dtype, ndim, sizes, strides, zeros, &k.tensor, &test_error));
	st = pt2box_load_constants(m, &k, 1, flags, &test_error);
	pt2box_tensor_free(k.tensor);
	return st;
}

static void test_refused(void **state)
{
	static const int64_t w1[] = {256, 64}, w2[] = {10, 256}, b2[] = {10},
			     turned_w1[] = {1, 256};
	static const struct {
		const char *name;
		int32_t dtype, ndim;
		int64_t sizes[3];
		enum pt2box_status status;
	} bad[] = {
		{"nobody", 6, 2, {256, 64}, PT2BOX_NOT_FOUND},
		{"fc1_weight", 6, 2, {256, 64}, PT2BOX_NOT_FOUND},
		{"fc1.weigh", 6, 2, {256, 64}, PT2BOX_NOT_FOUND},
		{"fc1.weight", 7, 2, {256, 64}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 3, 2, {256, 64}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 15, 2, {256, 64}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 6, 2, {64, 256}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 6, 1, {16384}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 6, 3, {256, 64, 1}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 6, 2, {257, 64}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 6, 2, {0, 64}, PT2BOX_BAD_TENSOR},
		{"fc1.weight", 6, 0, {0}, PT2BOX_BAD_TENSOR},
	};
	struct before b;
	struct loaded l;

	(void)state;
	loaded_open(&l, NULL, "mlp", 2);
	remember(&l, &b);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		for (uint32_t inactive = 0; inactive < 2; inactive++) {
			REFUSED(give(l.m, bad[i].name, bad[i].dtype, bad[i].ndim, bad[i].sizes,
				     NULL, inactive),
				bad[i].status, bad[i].name);
			assert_as_before(&l, &b);
		}
	/* All that is missing has a name, in a full update. */
	REFUSED(give(l.m, "fc2.bias", 6, 1, b2, NULL, PT2BOX_CONSTANTS_FULL), PT2BOX_NOT_FOUND,
		"fc1.weight");
	assert_non_null(strstr(test_error.text, "fc1.bias"));
	assert_non_null(strstr(test_error.text, "fc2.weight"));
	assert_null(strstr(test_error.text, "fc2.bias"));
	REFUSED(pt2box_load_constants(l.m, NULL, 0, PT2BOX_CONSTANTS_FULL, &test_error),
		PT2BOX_NOT_FOUND, "fc1.weight");
	/* Strides matter only to those who say that they do. */
	REFUSED(give(l.m, "fc1.weight", 6, 2, w1, turned_w1, PT2BOX_CONSTANTS_USER_MANAGED),
		PT2BOX_BAD_TENSOR, "fc1.weight");
	REFUSED(pt2box_load_constants(l.m, NULL, 0, 1u << 20, &test_error), PT2BOX_USAGE, "");
	assert_as_before(&l, &b);
	/* One bad name among good ones: none of them is taken. */
	for (int k = 0; k < 2; k++) {
		float zero[2560] = {0};
		struct pt2box_constant two[2] = {{.name = k ? "nobody" : "fc2.weight"},
						 {.name = k ? "fc2.weight" : "nobody"}};

		for (int i = 0; i < 2; i++)
			OK(pt2box_tensor_lend(6, 2, w2, NULL, zero, &two[i].tensor, &test_error));
		REFUSED(pt2box_load_constants(l.m, two, 2, 0, &test_error), PT2BOX_NOT_FOUND,
			"nobody");
		two[0].name = two[1].name = "fc2.weight";
		REFUSED(pt2box_load_constants(l.m, two, 2, 0, &test_error), PT2BOX_USAGE,
			"fc2.weight");
		for (int i = 0; i < 2; i++)
			pt2box_tensor_free(two[i].tensor);
		assert_as_before(&l, &b);
	}
	forget(&b);
	/* What is near to these is taken. */
	OK(give(l.m, "fc1_weight", 6, 2, w1, NULL, PT2BOX_CONSTANTS_NAMES));
	OK(give(l.m, "fc1.weight", 6, 2, w1, NULL, PT2BOX_CONSTANTS_NAMES));
	OK(give(l.m, "fc1.weight", 6, 2, w1, turned_w1, 0));
	OK(give(l.m, "fc1.weight", 6, 2, w1, NULL, PT2BOX_CONSTANTS_USER_MANAGED));
	OK(pt2box_load_constants(l.m, NULL, 0, 0, &test_error));
	loaded_close(&l);
}

/* Texts in a name are not texts of ours. */
static void test_hostile_names(void **state)
{
	static const char *const names[] = {
		"", "\n\033[31mx", "\xff\xfe", "../../etc/passwd", "fc1.weight\n", "__metadata__"};
	static const int64_t one[] = {1};
	char *longest = malloc(70001);
	struct before b;
	struct loaded l;

	(void)state;
	memset(longest, 'n', 70000);
	longest[70000] = '\0';
	loaded_open(&l, NULL, "mlp", 0);
	remember(&l, &b);
	for (size_t i = 0; i <= sizeof(names) / sizeof(names[0]); i++) {
		const char *name = i < sizeof(names) / sizeof(names[0]) ? names[i] : longest;
		enum pt2box_status st = give(l.m, name, 6, 1, one, NULL, 0);

		assert_true(st == PT2BOX_NOT_FOUND || st == PT2BOX_USAGE ||
			    st == PT2BOX_PKG_REJECTED);
		for (const char *p = test_error.text; *p; p++)
			assert_true((unsigned char)*p >= 0x20 && (unsigned char)*p != 0x7f);
		assert_as_before(&l, &b);
	}
	forget(&b);
	free(longest);
	loaded_close(&l);
}

static void test_refused_files(void **state)
{
	static const char *const texts[] = {"", "no safetensors", "\2\0\0\0\0\0\0\0{}",
					    "\377\377\377\377\377\377\377\177{}",
					    "\10\0\0\0\0\0\0\0[1,2,3]."};
	static const size_t sizes[] = {0, 14, 10, 10, 16};
	struct before b;
	struct loaded l;
	int fd[2];

	(void)state;
	loaded_open(&l, NULL, "mlp", 0);
	remember(&l, &b);
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		int file = memfd_create("bad", MFD_CLOEXEC);
		enum pt2box_status st;

		assert_int_equal(write(file, texts[i], sizes[i]), (ssize_t)sizes[i]);
		st = pt2box_load_constants_fd(l.m, file, PT2BOX_CONSTANTS_FULL, &test_error);
		assert_true(st == PT2BOX_PKG_REJECTED || st == PT2BOX_NOT_FOUND);
		close(file);
		assert_as_before(&l, &b);
	}
	assert_int_not_equal(pt2box_load_constants_fd(l.m, -1, 0, &test_error), PT2BOX_OK);
	assert_int_equal(pipe2(fd, O_CLOEXEC), 0);
	REFUSED(pt2box_load_constants_fd(l.m, fd[0], 0, &test_error), PT2BOX_BAD_FD, "");
	close(fd[0]);
	close(fd[1]);
	assert_as_before(&l, &b);
	forget(&b);
	loaded_close(&l);
}

/* Constants that the package computes itself cannot be given. */
static void test_folded(void **state)
{
	static const char *const names[] = {"rtfold", "extfold"};

	(void)state;
	for (int k = 0; k < 2; k++) {
		struct pt2box_constant_info info;
		struct before b;
		struct loaded l;
		int folded = 0;

		loaded_open(&l, NULL, names[k], 0);
		remember(&l, &b);
		for (size_t i = 0; pt2box_model_constant(l.m, i, &info); i++) {
			if (!info.folded)
				continue;
			assert_int_equal(info.type, 4);
			REFUSED(give(l.m, info.fqn[0] ? info.fqn : info.name, info.dtype, info.ndim,
				     info.sizes, NULL, 0),
				PT2BOX_BAD_TENSOR, info.fqn);
			REFUSED(give(l.m, info.name, info.dtype, info.ndim, info.sizes, NULL,
				     PT2BOX_CONSTANTS_NAMES),
				PT2BOX_BAD_TENSOR, info.name);
			folded++;
		}
		assert_true(folded > 0);
		assert_as_before(&l, &b);
		forget(&b);
		loaded_close(&l);
	}
}

static void test_without_constants(void **state)
{
	static const int64_t sizes[] = {4};
	struct pt2box_constant_info info;
	struct pt2box_constant *list;
	struct loaded l;
	size_t n;

	(void)state;
	loaded_open(&l, NULL, "strided", 0);
	assert_false(pt2box_model_constant(l.m, 0, &info));
	REFUSED(give(l.m, "w", 6, 1, sizes, NULL, 0), PT2BOX_NOT_FOUND, "w");
	REFUSED(pt2box_load_constants(l.m, NULL, 0, PT2BOX_CONSTANTS_FULL, &test_error),
		PT2BOX_UNSUPPORTED, "no constants");
	REFUSED(pt2box_extract_constants(l.m, 0, &list, &n, &test_error), PT2BOX_UNSUPPORTED,
		"no constants");
	REFUSED(pt2box_swap_constants(l.m, &test_error), PT2BOX_UNSUPPORTED, "no constants");
	loaded_gives(&l, l.m, l.f.cases[0].out);
	loaded_close(&l);
}

/* ---- two buffers ---- */

static void test_swap(void **state)
{
	struct test_update full, partial;
	struct loaded l;

	(void)state;
	assert_true(test_update_get("mlp", 0, &full) && test_update_get("mlp", 1, &partial));
	loaded_open(&l, NULL, "mlp", 2);
	REFUSED(pt2box_swap_constants(l.m, &test_error), PT2BOX_USAGE, "");
	REFUSED(pt2box_fold_constants(l.m, 1, &test_error), PT2BOX_USAGE, "");
	OK(pt2box_free_inactive_constants(l.m, &test_error));
	OK(pt2box_fold_constants(l.m, 0, &test_error));
	loaded_gives(&l, l.m, l.f.cases[0].out);
	/* What is given to the inactive buffer is not seen, until they are exchanged; and so back.
	 */
	OK(update_file(l.m, partial.constants, PT2BOX_CONSTANTS_INACTIVE, FROM_FILE));
	loaded_gives(&l, l.m, l.f.cases[0].out);
	for (int i = 0; i < 3; i++) {
		OK(pt2box_swap_constants(l.m, &test_error));
		loaded_gives(&l, l.m, partial.out);
		OK(pt2box_swap_constants(l.m, &test_error));
		loaded_gives(&l, l.m, l.f.cases[0].out);
	}
	/* The active one changes meanwhile: the inactive one does not. */
	OK(update_file(l.m, full.constants, PT2BOX_CONSTANTS_FULL, FROM_MEMORY));
	loaded_gives(&l, l.m, full.out);
	OK(pt2box_swap_constants(l.m, &test_error));
	loaded_gives(&l, l.m, partial.out);
	OK(pt2box_free_inactive_constants(l.m, &test_error));
	OK(pt2box_free_inactive_constants(l.m, &test_error));
	REFUSED(pt2box_swap_constants(l.m, &test_error), PT2BOX_USAGE, "");
	loaded_gives(&l, l.m, partial.out);
	/* An empty one is filled from the active one. */
	OK(update_file(l.m, full.constants, PT2BOX_CONSTANTS_INACTIVE, FROM_MEMFD));
	OK(pt2box_swap_constants(l.m, &test_error));
	loaded_gives(&l, l.m, full.out);
	loaded_close(&l);
}

static void test_fold(void **state)
{
	static const char *const names[] = {"rtfold", "extfold"};

	(void)state;
	for (int k = 0; k < 2; k++) {
		struct test_update full, partial;
		struct loaded l;

		assert_true(test_update_get(names[k], 0, &full) &&
			    test_update_get(names[k], 1, &partial));
		loaded_open(&l, NULL, names[k], 2);
		OK(pt2box_fold_constants(l.m, 0, &test_error));
		loaded_gives(&l, l.m, l.f.cases[0].out);
		OK(update_file(l.m, full.constants, PT2BOX_CONSTANTS_INACTIVE, FROM_FILE));
		OK(pt2box_fold_constants(l.m, 1, &test_error));
		loaded_gives(&l, l.m, l.f.cases[0].out);
		OK(pt2box_swap_constants(l.m, &test_error));
		loaded_gives(&l, l.m, full.out);
		OK(pt2box_fold_constants(l.m, 0, &test_error));
		OK(pt2box_fold_constants(l.m, 1, &test_error));
		loaded_gives(&l, l.m, full.out);
		OK(pt2box_swap_constants(l.m, &test_error));
		loaded_gives(&l, l.m, l.f.cases[0].out);
		OK(update_file(l.m, partial.constants, 0, FROM_MEMORY));
		loaded_gives(&l, l.m, partial.out);
		loaded_close(&l);
	}
}

/*
 * What is not given to an inactive buffer that is there: parameters stay as they are in it, buffers
 * come from the active one (model_container.h:609-618 of torch 2.13.0).
 */
static void test_inactive_is_kept(void **state)
{
	static const int64_t sixteen[] = {16}, matrix[] = {32, 16};
	struct test_constants k;
	struct test_update full;
	struct pt2box_constant *list;
	struct loaded l;
	size_t n;

	(void)state;
	assert_true(test_update_get("extfold", 0, &full));
	test_constants_read(&k, full.constants);
	loaded_open(&l, NULL, "extfold", 0);
	OK(update_file(l.m, full.constants, PT2BOX_CONSTANTS_INACTIVE, FROM_FILE));
	OK(give(l.m, "s", 6, 1, sixteen, NULL, 0));
	OK(give(l.m, "v", 6, 2, matrix, NULL, PT2BOX_CONSTANTS_INACTIVE));
	extract(l.m, 1, &list, &n);
	assert_int_equal(n, 4);
	assert_true(test_tensors_same(test_constants_find(list, n, "w"),
				      test_constants_find(k.list, k.n, "w")));
	assert_true(test_tensors_same(test_constants_find(list, n, "b"),
				      test_constants_find(k.list, k.n, "b")));
	for (int64_t i = 0; i < 512; i++)
		assert_true(fixture_at(pt2box_tensor_get_info(test_constants_find(list, n, "v")),
				       i) == 0);
	for (int64_t i = 0; i < 16; i++)
		assert_true(fixture_at(pt2box_tensor_get_info(test_constants_find(list, n, "s")),
				       i) == 0);
	pt2box_free_constants(list, n);
	test_constants_free(&k);
	loaded_close(&l);
}

/* ---- processes that die ---- */

/* Constants are what they were, whoever serves: active and inactive. */
static void check_survives(const char *name, const char *what)
{
	struct test_update full, partial;
	struct pt2box_constant *list;
	struct test_constants k;
	struct loaded l;
	size_t n;

	assert_true(test_update_get(name, 0, &full) && test_update_get(name, 1, &partial));
	test_constants_read(&k, full.constants);
	loaded_open(&l, NULL, name, 1);
	OK(update_file(l.m, partial.constants, 0, FROM_FILE));
	OK(update_file(l.m, full.constants, PT2BOX_CONSTANTS_INACTIVE, FROM_FILE));
	for (int i = 0; i < 3; i++) {
		test_kill_and_wait(l.c, what, 0);
		loaded_gives(&l, l.m, partial.out);
		extract(l.m, 1, &list, &n);
		assert_true(n > 0);
		assert_values(list, n, k.list, k.n, NULL, 0);
		pt2box_free_constants(list, n);
	}
	OK(pt2box_swap_constants(l.m, &test_error));
	loaded_gives(&l, l.m, full.out);
	test_kill_and_wait(l.c, what, 0);
	loaded_gives(&l, l.m, full.out);
	OK(pt2box_swap_constants(l.m, &test_error));
	loaded_gives(&l, l.m, partial.out);
	OK(pt2box_free_inactive_constants(l.m, &test_error));
	test_kill_and_wait(l.c, what, 0);
	REFUSED(pt2box_swap_constants(l.m, &test_error), PT2BOX_USAGE, "");
	loaded_gives(&l, l.m, partial.out);
	test_constants_free(&k);
	loaded_close(&l);
}

static void test_worker_dies(void **state)
{
	(void)state;
	check_survives("mlp", "worker");
	check_survives("convs", "worker");
	check_survives("extfold", "worker");
}

static void test_template_dies(void **state)
{
	(void)state;
	check_survives("mlp", "template");
	check_survives("extconst", "template");
	check_survives("rtfold", "template");
	check_survives("blobconst", "template");
}

/* ---- two models, two threads ---- */

/* The same package twice: an update of one is not seen by the other, though they may share memory.
 */
static void test_two_models(void **state)
{
	struct test_update full;
	struct loaded a, b;

	(void)state;
	assert_true(test_update_get("extconst", 0, &full));
	loaded_open(&a, NULL, "extconst", 1);
	loaded_open(&b, a.c, "extconst", 1);
	OK(update_file(a.m, full.constants, PT2BOX_CONSTANTS_FULL, FROM_FILE));
	loaded_gives(&a, a.m, full.out);
	loaded_gives(&b, b.m, b.f.cases[0].out);
	OK(update_file(b.m, full.constants, PT2BOX_CONSTANTS_INACTIVE, FROM_FILE));
	loaded_gives(&b, b.m, b.f.cases[0].out);
	loaded_close(&b);
	loaded_gives(&a, a.m, full.out);
	loaded_close(&a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CHECK_TEST(test_updates),
		CHECK_TEST(test_every_worker),
		CHECK_TEST(test_extract),
		CHECK_TEST(test_extract_state),
		CHECK_TEST(test_strided),
		CHECK_TEST(test_from_the_lane),
		CHECK_TEST(test_refused),
		CHECK_TEST(test_hostile_names),
		CHECK_TEST(test_refused_files),
		CHECK_TEST(test_folded),
		CHECK_TEST(test_without_constants),
		CHECK_TEST(test_swap),
		CHECK_TEST(test_fold),
		CHECK_TEST(test_inactive_is_kept),
		CHECK_TEST(test_worker_dies),
		CHECK_TEST(test_template_dies),
		CHECK_TEST(test_two_models),
	};

	return test_programs_init() ? 1 : cmocka_run_group_tests(tests, NULL, NULL);
}
