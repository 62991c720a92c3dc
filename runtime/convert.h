/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conversion between element types, in two steps: load into one of six wide types, store from it.
 * The wide type is chosen so that no value is rounded twice: float32 from int64 must not pass
 * through double.
 */
#ifndef PT2BOX_RUNTIME_CONVERT_H
#define PT2BOX_RUNTIME_CONVERT_H

#include <stdint.h>

/* Elements converted at a time. */
#define PB_CONVERT_BLOCK 256

/* @n elements, strides in elements; 0, or 1 with the error set if there is no conversion between
 * the two types. */
int pb_rt_convert(void *dst, int32_t dst_dtype, int64_t dst_stride, const void *src,
		  int32_t src_dtype, int64_t src_stride, int64_t n);

/* Float8 types, by dtype number. */
float pb_rt_f8_to_float(uint8_t bits, int32_t dtype);
uint8_t pb_rt_f8_from_float(float v, int32_t dtype);

#endif
