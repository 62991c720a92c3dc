/* SPDX-License-Identifier: Apache-2.0 */
/* See npy.h. The header is the text of a Python dict; only the few literals that numpy writes there are understood. */
#include "client/cmd/npy.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "ipc/checked.h"

static const uint8_t magic[6] = {0x93, 'N', 'U', 'M', 'P', 'Y'};

size_t pb_npy_header_bytes(const uint8_t *data, size_t n)
{
	size_t len;

	if (n < 10 || memcmp(data, magic, sizeof(magic)) != 0 || data[6] < 1 || data[6] > 3)
		return 0;
	len = data[8] | (size_t)data[9] << 8;
	if (data[6] == 1)
		return 10 + len;
	if (n < 12)
		return 0;
	len |= (size_t)data[10] << 16 | (size_t)data[11] << 24;
	return len <= PB_NPY_HEADER_MAX ? 12 + len : 0;
}

/* ---- dtypes ---- */

static const struct {
	char kind;
	int bytes;
	int32_t dtype;
	bool raw;
} kinds[] = {
	{'b', 1, PT2BOX_BOOL, false},	  {'?', 1, PT2BOX_BOOL, false},	    {'i', 1, PT2BOX_INT8, false},
	{'i', 2, PT2BOX_INT16, false},	  {'i', 4, PT2BOX_INT32, false},    {'i', 8, PT2BOX_INT64, false},
	{'u', 1, PT2BOX_UINT8, false},	  {'u', 2, PT2BOX_UINT16, false},   {'u', 4, PT2BOX_UINT32, false},
	{'u', 8, PT2BOX_UINT64, false},	  {'f', 2, PT2BOX_FLOAT16, false},  {'f', 4, PT2BOX_FLOAT32, false},
	{'f', 8, PT2BOX_FLOAT64, false},  {'c', 8, PT2BOX_COMPLEX64, false}, {'c', 16, PT2BOX_COMPLEX128, false},
	/* Extension dtypes, as ml_dtypes' bfloat16 and float8, are saved as voids. */
	{'V', 1, PT2BOX_UINT8, true},	  {'V', 2, PT2BOX_UINT16, true},    {'V', 4, PT2BOX_UINT32, true},
	{'f', 1, PT2BOX_UINT8, true},
};

static bool set_dtype(struct pb_array *a, const char *descr, size_t n)
{
	const char *p = descr, *end = descr + n;
	char order = '|';
	int bytes = 0;

	if (p < end && strchr("<>|=", *p))
		order = *p++;
	if (p == end)
		return false;
	for (const char *q = p + 1; q < end; q++) {
		if (!isdigit((unsigned char)*q) || bytes > 99)
			return false;
		bytes = bytes * 10 + (*q - '0');
	}
	if (*p == '?' && p + 1 == end)
		bytes = 1;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (kinds[i].kind == *p && kinds[i].bytes == bytes) {
			a->dtype = kinds[i].dtype;
			a->raw = kinds[i].raw;
			a->swap = order == '>' && bytes > 1;
			return true;
		}
	return false;
}

/* ---- the header's text ---- */

struct text {
	const char *p, *end;
	const char *fault; /* first one */
};

static void fail(struct text *t, const char *fault)
{
	if (!t->fault)
		t->fault = fault;
	t->p = t->end;
}

static bool take(struct text *t, char c)
{
	while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t' || *t->p == '\r'))
		t->p++;
	if (t->p == t->end || *t->p != c)
		return false;
	t->p++;
	return true;
}

static bool take_word(struct text *t, const char *word)
{
	size_t n = strlen(word);

	if (!take(t, *word))
		return false;
	if ((size_t)(t->end - t->p) < n - 1 || memcmp(t->p, word + 1, n - 1) != 0) {
		t->p--;
		return false;
	}
	t->p += n - 1;
	return true;
}

/* Borrowed from the header. Nothing that numpy writes here has an escape in it. */
static const char *take_string(struct text *t, size_t *ret_n)
{
	char quote = '\'';
	const char *begin;

	if (!take(t, '\'')) {
		quote = '"';
		if (!take(t, '"')) {
			fail(t, "a string was expected");
			return NULL;
		}
	}
	begin = t->p;
	while (t->p < t->end && *t->p != quote && *t->p != '\\')
		t->p++;
	if (t->p == t->end || *t->p != quote) {
		fail(t, "a string does not end");
		return NULL;
	}
	*ret_n = (size_t)(t->p++ - begin);
	return begin;
}

static int64_t take_size(struct text *t)
{
	uint64_t v = 0;
	bool any = false;

	take(t, ' ');
	for (; t->p < t->end && isdigit((unsigned char)*t->p); t->p++, any = true)
		if (!pb_mul_u64(v, 10, &v) || !pb_add_u64(v, (uint64_t)(*t->p - '0'), &v) || v > INT64_MAX) {
			fail(t, "a size is too large");
			return 0;
		}
	if (!any)
		fail(t, "a size was expected");
	else if (t->p < t->end && *t->p == 'L')
		t->p++; /* written by Python 2 */
	return (int64_t)v;
}

static void take_shape(struct text *t, struct pb_array *a)
{
	if (!take(t, '(')) {
		fail(t, "the shape is not a tuple");
		return;
	}
	while (!t->fault && !take(t, ')')) {
		if (a->ndim == PT2BOX_MAX_DIMS) {
			fail(t, "more than 16 dimensions");
			return;
		}
		a->sizes[a->ndim++] = take_size(t);
		if (take(t, ','))
			continue;
		if (!take(t, ')'))
			fail(t, "the shape does not end");
		return;
	}
}

static void take_descr(struct text *t, struct pb_array *a)
{
	const char *descr;
	size_t n;

	if (take(t, '[')) {
		fail(t, "it has a structured dtype");
		return;
	}
	descr = take_string(t, &n);
	if (!descr)
		return;
	if (memchr(descr, 'O', n))
		fail(t, "it holds Python objects");
	else if (!set_dtype(a, descr, n))
		fail(t, "its dtype is not one of a tensor");
}

static bool take_bool(struct text *t)
{
	if (take_word(t, "True"))
		return true;
	if (!take_word(t, "False"))
		fail(t, "True or False was expected");
	return false;
}

static void take_dict(struct text *t, struct pb_array *a, bool *ret_fortran)
{
	unsigned int seen = 0;

	if (!take(t, '{'))
		fail(t, "the header is not a dict");
	while (!t->fault && !take(t, '}')) {
		size_t n;
		const char *key = take_string(t, &n);
		unsigned int bit = 0;

		if (!key || !take(t, ':')) {
			fail(t, "a key was expected");
		} else if (n == 5 && memcmp(key, "descr", n) == 0) {
			bit = 1;
			take_descr(t, a);
		} else if (n == 5 && memcmp(key, "shape", n) == 0 && !(seen & 2)) {
			bit = 2;
			take_shape(t, a);
		} else if (n == 13 && memcmp(key, "fortran_order", n) == 0) {
			bit = 4;
			*ret_fortran = take_bool(t);
		}
		if (!bit || seen & bit)
			fail(t, "a key is unknown or there twice");
		seen |= bit;
		if (!take(t, ',') && !t->fault) {
			if (!take(t, '}'))
				fail(t, "the header does not end");
			break;
		}
	}
	if (seen != 7)
		fail(t, "a key is missing");
	take(t, ' ');
	if (t->p != t->end)
		fail(t, "text follows the header");
}

pb_status pb_npy_parse(const uint8_t *data, size_t n, const char *what, struct pb_array *a, struct pt2box_error *err)
{
	size_t header = pb_npy_header_bytes(data, n), prefix;
	bool fortran = false;
	struct text t;

	if (header == 0 || header > n)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is not an .npy array, or it is cut", what);
	prefix = data[6] == 1 ? 10 : 12;
	t = (struct text){(const char *)data + prefix, (const char *)data + header, NULL};
	take_dict(&t, a, &fortran);
	if (!t.fault && !pb_array_measure(a, fortran))
		t.fault = "its shape is too large";
	if (t.fault)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s cannot be used: %s", what, t.fault);
	a->offset = header;
	return PT2BOX_OK;
}

/* "dir/x.npy" -> "x" */
static char *stem_of(const char *path)
{
	const char *base = strrchr(path, '/'), *dot;

	base = base ? base + 1 : path;
	dot = strrchr(base, '.');
	return strndup(base, dot ? (size_t)(dot - base) : strlen(base));
}

pb_status pb_npy_open(struct pb_array_file *f, struct pt2box_error *err)
{
	struct pb_array *a = pb_array_file_add(f);
	uint8_t prefix[PB_NPY_PREFIX], *header;
	size_t n = f->size < sizeof(prefix) ? (size_t)f->size : sizeof(prefix);
	pb_status st = pb_array_pread(f, prefix, n, 0, err);

	if (st)
		return st;
	n = pb_npy_header_bytes(prefix, n);
	if (n == 0 || n > f->size)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%s is not an .npy file, or it is cut", f->name);
	header = malloc(n);
	if (a)
		a->name = stem_of(f->name);
	if (!header || !a || !a->name) {
		free(header);
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	}
	st = pb_array_pread(f, header, n, 0, err);
	if (!st)
		st = pb_npy_parse(header, n, f->name, a, err);
	free(header);
	if (!st && !pb_span_fits(a->offset, a->bytes, f->size))
		st = pb_error_set(err, PT2BOX_BAD_TENSOR, "%s ends too early", f->name);
	return st;
}
