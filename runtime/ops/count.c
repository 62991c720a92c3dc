/* SPDX-License-Identifier: Apache-2.0 */
/* bincount. As aten/src/ATen/native/SummaryOps.cpp. */
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/proxy.h"

/* Smallest and largest element, as int64. */
static bool range(const int64_t *v, int64_t n, int64_t *ret_max)
{
	*ret_max = -1;
	for (int64_t i = 0; i < n; i++) {
		if (v[i] < 0)
			return false;
		*ret_max = v[i] > *ret_max ? v[i] : *ret_max;
	}
	return true;
}

static int count(const int64_t *v, int64_t n, const struct pb_rt_tensor *weights, struct pb_rt_tensor *out)
{
	struct pb_rt_tensor *w;

	if (out->numel)
		memset(pb_rt_data(out), 0, (size_t)out->numel * pb_rt_dtype_size(out->dtype));
	if (!weights) {
		for (int64_t i = 0; i < n; i++)
			((int64_t *)pb_rt_data(out))[v[i]]++;
		return 0;
	}
	w = pb_clone_as(weights, out->dtype);
	for (int64_t i = 0; w && i < n; i++) {
		if (out->dtype == PB_RT_F32)
			((float *)pb_rt_data(out))[v[i]] += ((float *)pb_rt_data(w))[i];
		else
			((double *)pb_rt_data(out))[v[i]] += ((double *)pb_rt_data(w))[i];
	}
	pb_rt_delete(w);
	return !w;
}

int pb_op_bincount(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0), *weights = pb_arg(c, 1);
	const int64_t minlength = pb_arg_int(c, 2);
	struct pb_rt_tensor *wide;
	int64_t max, n;
	int rc;

	if (minlength < 0)
		return pb_rt_fail("minlength should be >= 0");
	if (!pb_is_integral(self->dtype) || self->dtype >= PB_RT_U16)
		return pb_not_implemented("bincount_cpu", self->dtype);
	if (self->ndim != 1)
		return pb_rt_fail("bincount only supports 1-d non-negative integral inputs.");
	if (weights && self->numel && (weights->ndim != 1 || weights->numel != self->numel))
		return pb_rt_fail("weights should be 1-d and have the same length as input");
	if (!self->numel)
		weights = NULL; /* zeros of int64, whatever the weights */
	wide = pb_clone_as(self, PB_RT_I64);
	if (!wide)
		return 1;
	if (!range(pb_rt_data(wide), wide->numel, &max)) {
		pb_rt_delete(wide);
		return pb_rt_fail("bincount only supports 1-d non-negative integral inputs.");
	}
	n = max >= minlength && max < INT64_MAX ? max + 1 : minlength;
	c->ret[0] = pb_rt_empty(!weights ? PB_RT_I64 : weights->dtype == PB_RT_F32 ? PB_RT_F32 : PB_RT_F64, 1, &n, NULL);
	rc = !c->ret[0] || count(pb_rt_data(wide), wide->numel, weights, c->ret[0]);
	pb_rt_delete(wide);
	return rc;
}
