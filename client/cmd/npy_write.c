/* SPDX-License-Identifier: Apache-2.0 */
/* See npy.h. Writing: version 1, in Fortran order where the elements lie so. */
#include <stdio.h>
#include <string.h>

#include "client/cmd/npy.h"

/* What numpy has no dtype for is written as unsigned integers of its size. */
static void descr_of(int32_t dtype, char ret[8])
{
	size_t bytes = pt2box_dtype_size(dtype);
	char kind = 'u';

	switch (dtype) {
	case PT2BOX_BOOL:
		kind = 'b';
		break;
	case PT2BOX_INT8:
	case PT2BOX_INT16:
	case PT2BOX_INT32:
	case PT2BOX_INT64:
		kind = 'i';
		break;
	case PT2BOX_FLOAT16:
	case PT2BOX_FLOAT32:
	case PT2BOX_FLOAT64:
		kind = 'f';
		break;
	case PT2BOX_COMPLEX64:
	case PT2BOX_COMPLEX128:
		kind = 'c';
		break;
	default:
		break;
	}
	snprintf(ret, 8, "%c%c%zu", bytes > 1 ? '<' : '|', kind, bytes);
}

static bool in_fortran_order(const struct pb_array_view *v)
{
	struct pb_array a = {.ndim = v->ndim};
	int64_t expect = 1;
	bool fortran = true;

	for (int32_t d = 0; d < v->ndim; d++) {
		a.sizes[d] = v->sizes[d];
		a.strides[d] = v->strides[d];
		fortran = fortran && (v->sizes[d] <= 1 || v->strides[d] == expect);
		expect *= v->sizes[d];
	}
	return fortran && !pb_array_is_c_order(&a);
}

/* Room for 16 sizes of 20 digits. */
struct header {
	size_t n;
	char text[10 + 512];
};

static void make_header(const struct pb_array_view *v, struct header *h)
{
	char descr[8], shape[PT2BOX_MAX_DIMS * 22 + 2];
	size_t n = 0, len;

	shape[0] = '\0';
	for (int32_t d = 0; d < v->ndim; d++)
		n += (size_t)snprintf(shape + n, sizeof(shape) - n, "%lld,%s", (long long)v->sizes[d],
				      d + 1 < v->ndim ? " " : "");
	/* One element keeps its comma, as tuples do. */
	if (v->ndim > 1)
		shape[n - 1] = '\0';
	descr_of(v->dtype, descr);
	len = (size_t)snprintf(h->text + 10, sizeof(h->text) - 10, "{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }",
			       descr, in_fortran_order(v) ? "True" : "False", shape);
	/* Padded so that the elements begin at a multiple of 64, with a newline last. */
	h->n = (10 + len + 1 + 63) / 64 * 64;
	memset(h->text + 10 + len, ' ', h->n - 10 - len);
	h->text[h->n - 1] = '\n';
	memcpy(h->text, "\x93NUMPY", 6);
	h->text[6] = 1;
	h->text[7] = 0;
	pb_put_u16((uint8_t *)h->text + 8, h->n - 10);
}

uint64_t pb_npy_size(const struct pb_array_view *v)
{
	struct header h;
	uint64_t numel = 1;

	make_header(v, &h);
	for (int32_t d = 0; d < v->ndim; d++)
		numel *= (uint64_t)v->sizes[d];
	return h.n + numel * pt2box_dtype_size(v->dtype);
}

pb_status pb_npy_write(struct pb_sink *s, const struct pb_array_view *v, struct pt2box_error *err)
{
	struct header h;

	if (v->ndim < 0 || v->ndim > PT2BOX_MAX_DIMS || pt2box_dtype_size(v->dtype) == 0)
		return pb_error_set(err, PT2BOX_INTERNAL, "%s is not a tensor that can be written", v->name);
	make_header(v, &h);
	pb_sink_write(s, h.text, h.n);
	pb_sink_elements(s, v, in_fortran_order(v));
	return PT2BOX_OK;
}
