/* SPDX-License-Identifier: Apache-2.0 */
/*
 * State, messages and debugging of the C ABI. What a model says goes to stderr in bounded amounts:
 * it is not trusted, and a worker's stderr is somebody's log.
 */
#include <math.h>
#include <stdio.h>

#include "runtime/abi.h"
#include "runtime/convert.h"
#include "runtime/hooks.h"
#include "runtime/ops/shape.h"
#include "runtime/tensor.h"

#define MESSAGES_MAX 1000
#define PRINT_MAX 16

static __thread bool grad_mode = true;

bool aoti_torch_grad_mode_is_enabled(void)
{
	return grad_mode;
}

void aoti_torch_grad_mode_set_enabled(bool enabled)
{
	grad_mode = enabled;
}

const char *torch_exception_get_what_without_backtrace(void)
{
	return pb_rt_last_error();
}

static bool may_speak(void)
{
	static int said;

	if (said < MESSAGES_MAX)
		said++;
	else
		return false;
	if (said == MESSAGES_MAX)
		fputs("no more messages of this model are printed\n", stderr);
	return said < MESSAGES_MAX;
}

void aoti_torch_warn(const char *func, const char *file, uint32_t line, const char *msg)
{
	(void)file;
	(void)line;
	if (may_speak())
		fprintf(stderr, "warning: %.400s (%.100s)\n", msg ? msg : "", func ? func : "?");
}

static void print_values(const struct pb_rt_tensor *t)
{
	struct pb_rt_tensor *c = pb_rt_contiguous(t);
	const int n = t->numel < PRINT_MAX ? (int)t->numel : PRINT_MAX;
	double v[PRINT_MAX];

	if (c && !pb_rt_convert(v, PB_RT_F64, 1, pb_rt_data(c), c->dtype, 1, n))
		for (int i = 0; i < n; i++)
			fprintf(stderr, " %g", v[i]);
	pb_rt_delete(c);
}

void aoti_torch_print_tensor_handle(AtenTensorHandle self, const char *msg)
{
	if (!may_speak())
		return;
	fprintf(stderr, "[%.200s]:", msg ? msg : "tensor");
	if (!self->storage) {
		fputs(" not defined\n", stderr);
		return;
	}
	fprintf(stderr, " %s %s", pb_rt_dtype_name(self->dtype), PB_SHAPE(self));
	print_values(self);
	fputs(self->numel > PRINT_MAX ? " ...\n" : "\n", stderr);
}

static bool is_float(int32_t dtype)
{
	return dtype == PB_RT_F16 || dtype == PB_RT_F32 || dtype == PB_RT_F64 ||
	       dtype == PB_RT_BF16 || (dtype >= PB_RT_F8_E5M2 && dtype <= PB_RT_F8_E4M3FNUZ);
}

AOTITorchError aoti_torch_check_inf_and_nan(const char *tensor_name, AtenTensorHandle tensor)
{
	struct pb_rt_tensor *c;
	bool nan = false, inf = false;

	if (!is_float(tensor->dtype))
		return 0;
	c = pb_rt_contiguous(tensor);
	if (!c)
		return 1;
	for (int64_t i = 0; i < c->numel; i += PB_CONVERT_BLOCK) {
		const int64_t n = c->numel - i < PB_CONVERT_BLOCK ? c->numel - i : PB_CONVERT_BLOCK;
		double v[PB_CONVERT_BLOCK];

		(void)pb_rt_convert(v, PB_RT_F64, 1,
				    (char *)pb_rt_data(c) + i * (int64_t)pb_rt_dtype_size(c->dtype),
				    c->dtype, 1, n);
		for (int64_t k = 0; k < n; k++) {
			nan |= isnan(v[k]) != 0;
			inf |= isinf(v[k]) != 0;
		}
	}
	pb_rt_delete(c);
	if (nan || inf)
		return pb_rt_fail("At least one %s in %.200s", nan ? "NaN" : "INF",
				  tensor_name ? tensor_name : "?");
	return 0;
}

/* ---- profiler records: nobody listens, and the values are never looked at ---- */

static char no_value;

static AOTITorchError no_record(void **ret)
{
	*ret = &no_value;
	return 0;
}

AOTITorchError aoti_record_function_start(const char *name, void *kwargs, const pb_ivalue *inputs,
					  uint64_t n_inputs, void **guard)
{
	(void)name;
	(void)kwargs;
	(void)inputs;
	(void)n_inputs;
	return no_record(guard);
}

AOTITorchError aoti_record_function_end(void *guard)
{
	(void)guard;
	return 0;
}

AOTITorchError aoti_torch_int64_to_ivalue(int64_t val, pb_ivalue *ret)
{
	(void)val;
	return no_record(ret);
}

AOTITorchError aoti_torch_strlist_to_ivalue(const char **val, int64_t len, pb_ivalue *ret)
{
	(void)val;
	(void)len;
	return no_record(ret);
}

AOTITorchError aoti_torch_str_to_ivalue(const char *val, pb_ivalue *ret)
{
	(void)val;
	return no_record(ret);
}

AOTITorchError aoti_torch_tensor_to_ivalue(AtenTensorHandle val, pb_ivalue *ret)
{
	(void)val;
	return no_record(ret);
}

AOTITorchError aoti_torch_delete_c10_value_object(pb_ivalue handle)
{
	(void)handle;
	return 0;
}
