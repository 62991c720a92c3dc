/* SPDX-License-Identifier: Apache-2.0 */
/* How functions for pb_map are written, and what elementwise operators share. */
#ifndef PT2BOX_RUNTIME_OPS_MAP_FN_H
#define PT2BOX_RUNTIME_OPS_MAP_FN_H

#include "runtime/ops/layout.h"
#include "runtime/ops/map.h"

/* out = expr of x. */
#define MAP_FN(name, out_type, in_type, expr)                                          \
	static void name(void *out, const void *const *in, int64_t n, const void *arg) \
	{                                                                              \
		out_type *o = out;                                                     \
		const in_type *a = in[0];                                              \
		(void)arg;                                                             \
		for (int64_t i = 0; i < n; i++) {                                      \
			const in_type x = a[i];                                        \
			o[i] = (expr);                                                 \
		}                                                                      \
	}

/* out = expr of x and y. @c: the number that arg points to, of the same type. */
#define MAP_FN2(name, out_type, in_type, expr)                                         \
	static void name(void *out, const void *const *in, int64_t n, const void *arg) \
	{                                                                              \
		out_type *o = out;                                                     \
		const in_type *a = in[0], *b = in[1];                                  \
		const in_type c = arg ? *(const in_type *)arg : 1;                     \
		for (int64_t i = 0; i < n; i++) {                                      \
			const in_type x = a[i], y = b[i];                              \
			(void)c;                                                       \
			o[i] = (expr);                                                 \
		}                                                                      \
	}

static inline int pb_map_finish(struct pb_map *m, int32_t dtype, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out = pb_map_new(m, dtype);

	if (!out)
		return 1;
	*ret0 = out;
	return 0;
}

/* Some operators make their result before they know its strides: it has the shape of @like. */
static inline int pb_map_finish_contiguous(struct pb_map *m, const struct pb_rt_tensor *like,
					   int32_t dtype, AtenTensorHandle *ret0)
{
	struct pb_rt_tensor *out = pb_rt_empty(dtype, like->ndim, like->sizes, NULL);

	if (!out || pb_map_into(m, out)) {
		pb_rt_delete(out);
		return 1;
	}
	*ret0 = out;
	return 0;
}

static inline int32_t pb_map_common_type(const struct pb_rt_tensor *a, const struct pb_rt_tensor *b)
{
	return pb_result_type((const struct pb_rt_tensor *const[]){a, b}, 2);
}

/* A number as a tensor without dimensions; it does not take part in the dtype. */
static inline struct pb_rt_tensor *pb_map_number(double value)
{
	struct pb_rt_tensor *t = pb_rt_empty(PB_RT_F64, 0, NULL, NULL);

	if (t)
		*(double *)pb_rt_data(t) = value;
	return t;
}

#endif
