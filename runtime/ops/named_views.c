/* SPDX-License-Identifier: Apache-2.0 */
/* Views that are called by name: of tensors that the compiler cannot take apart itself, complex ones. */
#include <string.h>

#include "runtime/ops/layout.h"
#include "runtime/proxy.h"

int pb_op_unsqueeze(const struct pb_proxy_call *c)
{
	const struct pb_rt_tensor *self = pb_arg(c, 0);
	int64_t sizes[PB_RT_MAX_DIMS], strides[PB_RT_MAX_DIMS];
	int dim;

	if (self->ndim == PB_RT_MAX_DIMS)
		return pb_rt_fail("unsqueeze: more than %d dimensions", PB_RT_MAX_DIMS);
	if (pb_wrap_dim(pb_arg_int(c, 1), self->ndim + 1, &dim))
		return 1;
	for (int d = 0, from = 0; d <= self->ndim; d++) {
		sizes[d] = d == dim ? 1 : self->sizes[from];
		strides[d] = d != dim ? self->strides[from] : d < self->ndim ? self->sizes[from] * self->strides[from] : 1;
		from += d != dim;
	}
	c->ret[0] = pb_rt_alias(self, self->ndim + 1, sizes, strides, self->offset);
	return !c->ret[0];
}
