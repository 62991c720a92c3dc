/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of a file of arrays: the first dimension of each. */
#include <stdlib.h>
#include <string.h>

#include "client/cmd/batch.h"

pb_status batch_rows_check(struct pb_array_file *f, uint64_t *ret_rows, struct pt2box_error *err)
{
	for (size_t i = 0; i < pb_array_file_count(f); i++) {
		const struct pb_array *a = pb_array_file_get(f, i);

		if (a->ndim < 1 || !pb_array_is_c_order(a))
			return pb_error_set(err, PT2BOX_USAGE, "%.100s in %.200s has no rows, or not in C order", a->name, f->name);
		if (i && a->sizes[0] != pb_array_file_get(f, 0)->sizes[0])
			return pb_error_set(err, PT2BOX_USAGE, "%.100s in %.200s has %lld rows, the first array %lld", a->name,
					    f->name, (long long)a->sizes[0], (long long)pb_array_file_get(f, 0)->sizes[0]);
		*ret_rows = (uint64_t)a->sizes[0];
	}
	if (!pb_array_file_count(f))
		return pb_error_set(err, PT2BOX_USAGE, "%.200s has no arrays", f->name);
	return PT2BOX_OK;
}

static pb_status read_rows(struct pb_array_file *f, size_t k, struct pt2box_model *m, const struct batch_item *item, uint32_t size,
			   struct cmd_tensors *ret, struct pt2box_error *err)
{
	const struct pb_array *a = pb_array_file_get(f, k);
	int32_t want = ret->n < pt2box_model_n_inputs(m) ? pt2box_model_input_dtype(m, ret->n) : -1;
	int32_t dtype = pb_array_dtype_as(a, want);
	uint64_t row = a->bytes / (uint64_t)a->sizes[0];
	int64_t sizes[PT2BOX_MAX_DIMS];
	uint8_t *data;
	pb_status st;

	if (dtype < 0)
		return pb_error_set(err, PT2BOX_BAD_TENSOR, "%.100s has a dtype that numpy does not know", a->name);
	memcpy(sizes, a->sizes, sizeof(sizes));
	sizes[0] = size;
	st = pt2box_tensor_alloc(m, dtype, a->ndim, sizes, &ret->t[ret->n], err);
	if (st)
		return st;
	data = pt2box_tensor_get_info(ret->t[ret->n++])->data;
	st = pb_array_file_read_span(f, k, item->first * row, item->rows * row, data, err);
	for (uint64_t i = item->rows; i < size && !st; i++)
		memcpy(data + i * row, data + (item->rows - 1) * row, row);
	return st;
}

pb_status batch_rows_read(struct pb_array_file *f, struct pt2box_model *m, const struct batch_item *item, uint32_t size,
			  struct cmd_tensors *ret, struct pt2box_error *err)
{
	size_t n = pb_array_file_count(f);
	pb_status st = PT2BOX_OK;

	*ret = (struct cmd_tensors){calloc(n + 1, sizeof(*ret->t)), calloc(n + 1, sizeof(*ret->buffer)), 0};
	if (!ret->t || !ret->buffer)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	for (size_t k = 0; k < n && !st; k++)
		st = read_rows(f, k, m, item, size, ret, err);
	return st;
}
