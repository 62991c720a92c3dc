/* SPDX-License-Identifier: Apache-2.0 */
/* Shapes as text, for error messages. */
#ifndef PT2BOX_RUNTIME_OPS_SHAPE_H
#define PT2BOX_RUNTIME_OPS_SHAPE_H

#include <stdint.h>
#include <stdio.h>

#include "runtime/tensor.h"

struct pb_shape_text {
	char s[PB_RT_MAX_DIMS * 22 + 3];
};

static inline const char *pb_shape_text(struct pb_shape_text *buf, const struct AtenTensorOpaque *t)
{
	int used = snprintf(buf->s, sizeof(buf->s), "[");

	for (int i = 0; i < t->ndim; i++)
		used += snprintf(buf->s + used, sizeof(buf->s) - used, i ? ", %lld" : "%lld",
				 (long long)t->sizes[i]);
	snprintf(buf->s + used, sizeof(buf->s) - used, "]");
	return buf->s;
}

/* Lives until the end of the enclosing block: long enough for the call it is an argument of. */
#define PB_SHAPE(t) pb_shape_text(&(struct pb_shape_text){""}, (t))

#endif
