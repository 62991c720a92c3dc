/* SPDX-License-Identifier: Apache-2.0 */
/* See fixture.h. */
#include "tests/lib/fixture.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- meta.json ---- */

static size_t take_dtypes(const json_t *list, int32_t *ret)
{
	const json_t *v;
	size_t i;

	json_array_foreach(list, i, v)
		if (i < TEST_ARRAYS_MAX)
			ret[i] = json_is_string(v) ? pt2box_dtype_from_name(json_string_value(v)) : -1;
	return json_array_size(list) < TEST_ARRAYS_MAX ? json_array_size(list) : TEST_ARRAYS_MAX;
}

static struct test_case *add_case(struct test_fixture *f, const json_t *o, const char *in, const char *out)
{
	struct test_case *c = &f->cases[f->n_cases++];
	char name[sizeof(f->name)];

	memcpy(name, f->name, sizeof(name));
	snprintf(c->in, sizeof(c->in), TEST_FIXTURES "/%s/%s", name, in);
	snprintf(c->out, sizeof(c->out), TEST_FIXTURES "/%s/%s", name, out);
	c->n_in = take_dtypes(json_object_get(o, "dtypes_in"), c->dtypes_in);
	c->n_out = take_dtypes(json_object_get(o, "dtypes_out"), c->dtypes_out);
	return c;
}

static void take_cases(struct test_fixture *f, json_t *o)
{
	json_t *v;
	const char *key;
	char in[64], out[64];
	size_t i;

	json_array_foreach(json_object_get(o, "cases"), i, v)
	{
		if (f->n_cases == sizeof(f->cases) / sizeof(f->cases[0]))
			return;
		snprintf(in, sizeof(in), "in%s.npz", json_string_value(v));
		snprintf(out, sizeof(out), "out%s.npz", json_string_value(v));
		add_case(f, o, in, out);
	}
	json_object_foreach(json_object_get(o, "models"), key, v)
	{
		if (f->n_cases == sizeof(f->cases) / sizeof(f->cases[0]))
			return;
		snprintf(add_case(f, v, json_string_value(json_object_get(v, "in")),
				  json_string_value(json_object_get(v, "out")))
				 ->model,
			 sizeof(f->cases[0].model), "%s", key);
	}
}

int test_fixture_load(const char *name, struct test_fixture *ret)
{
	char path[512];
	const char *constants;
	json_error_t e;
	json_t *o;

	memset(ret, 0, sizeof(*ret));
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->package, sizeof(ret->package), TEST_FIXTURES "/%s/model.pt2", name);
	snprintf(path, sizeof(path), TEST_FIXTURES "/%s/meta.json", name);
	o = json_load_file(path, 0, &e);
	if (!o) {
		fprintf(stderr, "%s: %s\n", path, e.text);
		return -1;
	}
	ret->rtol = json_number_value(json_object_get(o, "rtol"));
	ret->atol = json_number_value(json_object_get(o, "atol"));
	ret->sequence = json_is_true(json_object_get(o, "sequence"));
	constants = json_string_value(json_object_get(o, "constants"));
	if (constants)
		snprintf(ret->constants, sizeof(ret->constants), TEST_FIXTURES "/%s/%s", name, constants);
	take_cases(ret, o);
	json_decref(o);
	return ret->n_cases ? 0 : -1;
}

static int is_fixture(const struct dirent *e)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), TEST_FIXTURES "/%s/meta.json", e->d_name);
	f = fopen(path, "re");
	if (f)
		fclose(f);
	return f != NULL;
}

bool test_fixture_name(size_t i, char ret[64])
{
	struct dirent **list;
	int n = scandir(TEST_FIXTURES, &list, is_fixture, alphasort);

	if (n >= 0 && i < (size_t)n)
		snprintf(ret, 64, "%.63s", list[i]->d_name);
	for (int k = 0; k < n; k++)
		free(list[k]);
	if (n >= 0)
		free(list);
	return n >= 0 && i < (size_t)n;
}

/* ---- arrays ---- */

void test_arrays_free(struct test_arrays *a)
{
	for (size_t i = 0; i < TEST_ARRAYS_MAX; i++)
		free(a->data[i]);
	pb_array_file_free(a->file);
	memset(a, 0, sizeof(*a));
}

/* "out7" -> 7; a name without a number has its place in the file. */
static size_t number_of(const char *name, size_t place)
{
	size_t n = strcspn(name, "0123456789");

	return name[n] ? strtoul(name + n, NULL, 10) : place;
}

int test_arrays_read(const char *path, const int32_t *dtypes, size_t n_dtypes, struct test_arrays *ret)
{
	struct pt2box_error e = {.text = "too many arrays"};

	memset(ret, 0, sizeof(*ret));
	if (pb_array_file_open(path, &ret->file, &e) || pb_array_file_count(ret->file) > TEST_ARRAYS_MAX)
		goto fail;
	for (size_t i = 0; i < pb_array_file_count(ret->file); i++) {
		const struct pb_array *a = pb_array_file_get(ret->file, i);
		size_t k = number_of(a->name, i);

		ret->data[i] = malloc(a->bytes ? a->bytes : 1);
		if (!ret->data[i] || pb_array_file_read(ret->file, i, ret->data[i], &e))
			goto fail;
		ret->v[i] = (struct pb_array_view){a->name, pb_array_dtype_as(a, k < n_dtypes ? dtypes[k] : -1), a->ndim,
						   a->sizes, a->strides, ret->data[i]};
		ret->n++;
	}
	return 0;
fail:
	fprintf(stderr, "%s: %s\n", path, e.text);
	return -1;
}

/* ---- comparison ---- */

struct value {
	long double re, im;
	bool exact;
};

static long double from_half(uint16_t h)
{
	int e = h >> 10 & 31, m = h & 1023;
	long double v = e == 31 ? (m ? NAN : INFINITY) : e ? ldexpl(1024 + m, e - 25) : ldexpl(m, -24);

	return h & 0x8000 ? -v : v;
}

static long double from_bfloat16(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float f;

	memcpy(&f, &bits, sizeof(f));
	return f;
}

/* bits of exponent and mantissa; @finite: e4m3fn has no infinity, and one NaN */
static long double from_float8(uint8_t b, int m_bits, bool finite)
{
	int e_bits = 7 - m_bits, bias = (1 << (e_bits - 1)) - 1, e = b >> m_bits & ((1 << e_bits) - 1),
	    m = b & ((1 << m_bits) - 1);
	long double v;

	if (finite ? (b & 0x7f) == 0x7f : e == (1 << e_bits) - 1)
		v = finite || m ? NAN : INFINITY;
	else
		v = e ? ldexpl((1 << m_bits) + m, e - bias - m_bits) : ldexpl(m, 1 - bias - m_bits);
	return b & 0x80 ? -v : v;
}

#define LOAD(type, at) (__extension__({ type x_; memcpy(&x_, (const uint8_t *)p + (at), sizeof(x_)); x_; }))

static struct value value_of(int32_t dtype, const void *p)
{
	switch (dtype) {
	case PT2BOX_BOOL:
	case PT2BOX_UINT8:
		return (struct value){LOAD(uint8_t, 0), 0, true};
	case PT2BOX_INT8:
		return (struct value){LOAD(int8_t, 0), 0, true};
	case PT2BOX_INT16:
		return (struct value){LOAD(int16_t, 0), 0, true};
	case PT2BOX_UINT16:
		return (struct value){LOAD(uint16_t, 0), 0, true};
	case PT2BOX_INT32:
		return (struct value){LOAD(int32_t, 0), 0, true};
	case PT2BOX_UINT32:
		return (struct value){LOAD(uint32_t, 0), 0, true};
	case PT2BOX_INT64:
		return (struct value){LOAD(int64_t, 0), 0, true};
	case PT2BOX_UINT64:
		return (struct value){LOAD(uint64_t, 0), 0, true};
	case PT2BOX_FLOAT16:
		return (struct value){from_half(LOAD(uint16_t, 0)), 0, false};
	case PT2BOX_BFLOAT16:
		return (struct value){from_bfloat16(LOAD(uint16_t, 0)), 0, false};
	case PT2BOX_FLOAT8_E5M2:
		return (struct value){from_float8(LOAD(uint8_t, 0), 2, false), 0, false};
	case PT2BOX_FLOAT8_E4M3FN:
		return (struct value){from_float8(LOAD(uint8_t, 0), 3, true), 0, false};
	case PT2BOX_FLOAT32:
		return (struct value){LOAD(float, 0), 0, false};
	case PT2BOX_FLOAT64:
		return (struct value){LOAD(double, 0), 0, false};
	case PT2BOX_COMPLEX32:
		return (struct value){from_half(LOAD(uint16_t, 0)), from_half(LOAD(uint16_t, 2)), false};
	case PT2BOX_COMPLEX64:
		return (struct value){LOAD(float, 0), LOAD(float, 4), false};
	case PT2BOX_COMPLEX128:
		return (struct value){LOAD(double, 0), LOAD(double, 8), false};
	default:
		return (struct value){NAN, 0, true};
	}
}

static bool part_close(long double got, long double want, long double tolerance)
{
	if (isnan(got) || isnan(want))
		return isnan(got) && isnan(want);
	return got == want || (isfinite(want) && fabsl(got - want) <= tolerance);
}

static bool value_close(struct value got, struct value want, double rtol, double atol)
{
	long double tolerance = want.exact ? 0 : atol + rtol * hypotl(want.re, want.im);

	return part_close(got.re, want.re, tolerance) && part_close(got.im, want.im, tolerance);
}

static const uint8_t *element(const struct pb_array_view *v, int64_t i)
{
	int64_t at = 0;

	for (int32_t d = v->ndim - 1; d >= 0; i /= v->sizes[d--])
		at += i % v->sizes[d] * v->strides[d];
	return (const uint8_t *)v->data + (size_t)at * pt2box_dtype_size(v->dtype);
}

bool test_close(const struct pb_array_view *got, const struct pb_array_view *want, double rtol, double atol,
		char why[256])
{
	int64_t n = 1;

	if (got->dtype != want->dtype || got->ndim != want->ndim) {
		snprintf(why, 256, "%s of %d dimensions, not %s of %d", pt2box_dtype_name(got->dtype), got->ndim,
			 pt2box_dtype_name(want->dtype), want->ndim);
		return false;
	}
	for (int32_t d = 0; d < want->ndim; d++) {
		n *= want->sizes[d];
		if (got->sizes[d] != want->sizes[d]) {
			snprintf(why, 256, "dimension %d is %lld, not %lld", d, (long long)got->sizes[d],
				 (long long)want->sizes[d]);
			return false;
		}
	}
	for (int64_t i = 0; i < n; i++) {
		struct value g = value_of(got->dtype, element(got, i)), w = value_of(want->dtype, element(want, i));

		if (!value_close(g, w, rtol, atol)) {
			snprintf(why, 256, "element %lld is %Lg%+Lgj, not %Lg%+Lgj", (long long)i, g.re, g.im, w.re, w.im);
			return false;
		}
	}
	return true;
}

int test_compare_files(const struct test_fixture *f, const struct test_case *c, const char *got_path)
{
	struct test_arrays got = {0}, want = {0};
	char why[256];
	int rc = test_arrays_read(got_path, c->dtypes_out, c->n_out, &got) |
		 test_arrays_read(c->out, c->dtypes_out, c->n_out, &want);

	if (rc == 0 && got.n != want.n) {
		fprintf(stderr, "%s: %zu arrays, not %zu\n", c->out, got.n, want.n);
		rc = -1;
	}
	for (size_t i = 0; rc == 0 && i < want.n; i++) {
		if (strcmp(got.v[i].name, want.v[i].name) != 0)
			snprintf(why, sizeof(why), "is called %.100s", got.v[i].name);
		else if (test_close(&got.v[i], &want.v[i], f->rtol, f->atol, why))
			continue;
		fprintf(stderr, "%s, %s: %s\n", c->out, want.v[i].name, why);
		rc = -1;
	}
	test_arrays_free(&got);
	test_arrays_free(&want);
	return rc;
}
