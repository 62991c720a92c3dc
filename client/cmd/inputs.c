/* SPDX-License-Identifier: Apache-2.0 */
/* Input files become tensors of a model. Rows in C order are read straight into the model's lane. */
#include <stdlib.h>
#include <string.h>

#include "client/cmd/cmd.h"

pb_status cmd_inputs_open(const struct cmd_options *o, struct cmd_inputs *ret, struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	*ret = (struct cmd_inputs){.file = calloc(o->n_inputs + 1, sizeof(*ret->file))};
	if (!ret->file)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	for (size_t i = 0; i < o->n_inputs && !st; i++) {
		st = pb_array_file_open(o->inputs[i], &ret->file[i], err);
		if (!st) {
			ret->n_files++;
			ret->n += pb_array_file_count(ret->file[i]);
		}
	}
	return st;
}

void cmd_inputs_deinit(struct cmd_inputs *in)
{
	for (size_t i = 0; i < in->n_files; i++)
		pb_array_file_free(in->file[i]);
	free(in->file);
	*in = (struct cmd_inputs){0};
}

void cmd_tensors_deinit(struct cmd_tensors *t)
{
	for (size_t i = 0; i < t->n; i++) {
		pt2box_tensor_free(t->t[i]);
		free(t->buffer[i]);
	}
	free(t->t);
	free(t->buffer);
	*t = (struct cmd_tensors){0};
}

static pb_status read_one(struct pb_array_file *f, size_t k, struct pt2box_model *m, struct cmd_tensors *ret,
			  struct pt2box_error *err)
{
	const struct pb_array *a = pb_array_file_get(f, k);
	int32_t want = ret->n < pt2box_model_n_inputs(m) ? pt2box_model_input_dtype(m, ret->n) : -1;
	int32_t dtype = pb_array_dtype_as(a, want);
	void *buffer = NULL;
	pb_status st;

	if (dtype < 0)
		return pb_error_set(err, PT2BOX_BAD_TENSOR,
				    "%.100s in %.200s has a dtype that numpy does not know, and the package does not "
				    "say which it wants: store it as .safetensors",
				    a->name, f->name);
	if (pb_array_is_c_order(a)) {
		st = pt2box_tensor_alloc(m, dtype, a->ndim, a->sizes, &ret->t[ret->n], err);
		if (st)
			return st;
		buffer = pt2box_tensor_get_info(ret->t[ret->n])->data;
		ret->buffer[ret->n++] = NULL;
		return pb_array_file_read(f, k, buffer, err);
	}
	buffer = malloc(a->bytes);
	if (!buffer)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "no memory for %.100s in %.200s", a->name, f->name);
	st = pb_array_file_read(f, k, buffer, err);
	if (!st)
		st = pt2box_tensor_lend(dtype, a->ndim, a->sizes, a->strides, buffer, &ret->t[ret->n], err);
	if (st)
		free(buffer);
	else
		ret->buffer[ret->n++] = buffer;
	return st;
}

pb_status cmd_inputs_read(struct cmd_inputs *in, struct pt2box_model *m, struct cmd_tensors *ret,
			  struct pt2box_error *err)
{
	pb_status st = PT2BOX_OK;

	*ret = (struct cmd_tensors){calloc(in->n + 1, sizeof(*ret->t)), calloc(in->n + 1, sizeof(*ret->buffer)), 0};
	if (!ret->t || !ret->buffer)
		return pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");
	for (size_t i = 0; i < in->n_files && !st; i++)
		for (size_t k = 0; k < pb_array_file_count(in->file[i]) && !st; k++)
			st = read_one(in->file[i], k, m, ret, err);
	return st;
}

static size_t describe(const struct pb_array *a, char *dst, size_t cap)
{
	size_t n = (size_t)snprintf(dst, cap, " %.40s %s[", a->name, a->raw ? "?" : pt2box_dtype_name(a->dtype));

	for (int32_t d = 0; d < a->ndim && n < cap; d++)
		n += (size_t)snprintf(dst + n, cap - n, d ? ", %lld" : "%lld", (long long)a->sizes[d]);
	if (n < cap)
		n += (size_t)snprintf(dst + n, cap - n, "]");
	return n;
}

void cmd_inputs_explain(const struct cmd_inputs *in, struct pt2box_error *err)
{
	struct pt2box_error old = *err;
	char list[400] = "";
	size_t n = 0, shown = 0;

	for (size_t i = 0; i < in->n_files; i++)
		for (size_t k = 0; k < pb_array_file_count(in->file[i]) && n < 200; k++, shown++)
			n += describe(pb_array_file_get(in->file[i], k), list + n, sizeof(list) - n);
	pb_error_set(err, old.status, "%s; given:%s%s", old.text, in->n ? list : " no arrays: see --input",
		     shown < in->n ? " ..." : "");
}
