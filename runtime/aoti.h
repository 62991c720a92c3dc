/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The types of PyTorch's AOTInductor C ABI (torch/csrc/inductor/aoti_torch/c/shim.h, torch 2.13.0),
 * restated so that nothing of torch is needed to build.
 */
#ifndef PT2BOX_RUNTIME_AOTI_H
#define PT2BOX_RUNTIME_AOTI_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct AtenTensorOpaque;
typedef struct AtenTensorOpaque *AtenTensorHandle;
typedef int32_t AOTITorchError; /* 0 success, 1 failure */

#define AOTI_EXPORT __attribute__((visibility("default")))

enum pb_rt_dtype {
	PB_RT_U8 = 0,
	PB_RT_I8 = 1,
	PB_RT_I16 = 2,
	PB_RT_I32 = 3,
	PB_RT_I64 = 4,
	PB_RT_F16 = 5,
	PB_RT_F32 = 6,
	PB_RT_F64 = 7,
	PB_RT_C32 = 8,
	PB_RT_C64 = 9,
	PB_RT_C128 = 10,
	PB_RT_BOOL = 11,
	PB_RT_BF16 = 15,
	PB_RT_F8_E5M2 = 23,
	PB_RT_F8_E4M3FN = 24,
	PB_RT_F8_E5M2FNUZ = 25,
	PB_RT_F8_E4M3FNUZ = 26,
	PB_RT_U16 = 27,
	PB_RT_U32 = 28,
	PB_RT_U64 = 29,
	PB_RT_F8_E8M0FNU = 44,
	PB_RT_F4X2 = 45,
};

#ifdef __cplusplus
}
#endif
#endif
