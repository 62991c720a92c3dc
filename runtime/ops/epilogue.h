/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What oneDNN's fused operators do to a product or convolution before it is rounded and stored:
 * another tensor by a binary operation, then an activation. Always in float.
 */
#ifndef PT2BOX_RUNTIME_OPS_EPILOGUE_H
#define PT2BOX_RUNTIME_OPS_EPILOGUE_H

#include <stdint.h>

#include "runtime/ops/activation.h"

enum pb_binary { PB_BINARY_NONE, PB_BINARY_ADD, PB_BINARY_SUB, PB_BINARY_MUL, PB_BINARY_DIV };

struct pb_epilogue {
	enum pb_binary binary;
	struct pb_activation act;
};

/*
 * From PyTorch's names ("relu", "swish"; "add"), NULL or "none" for nothing; 0, or 1 with the error
 * set. Scalars may be NULL each.
 */
int pb_epilogue_unary(struct pb_epilogue *e, const char *op, const char *attr,
		      const double *const *scalars, int64_t n_scalars, const char *algorithm);
int pb_epilogue_binary(struct pb_epilogue *e, const char *op, const char *attr);

/* x[i] = act(x[i] binary other[i]) on the threads that it is worth; @other may be NULL without a
 * binary operation. */
void pb_epilogue_apply(const struct pb_epilogue *e, float *x, const float *other, int64_t n);

#endif
