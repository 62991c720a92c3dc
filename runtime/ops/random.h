/* SPDX-License-Identifier: Apache-2.0 */
/* Random tensors of the C ABI (c_shim_cpu.h of torch 2.13.0), from the CPU generator. */
#ifndef PT2BOX_RUNTIME_OPS_RANDOM_H
#define PT2BOX_RUNTIME_OPS_RANDOM_H

#include "runtime/aoti.h"

#ifdef __cplusplus
extern "C" {
#endif

struct AtenGeneratorOpaque;
typedef struct AtenGeneratorOpaque *AtenGeneratorHandle;

#define PB_OPTIONS \
	int32_t *dtype, int32_t *layout, int32_t *device, int32_t device_index_, int32_t *pin_memory

AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand(const int64_t *size, int64_t size_len_, PB_OPTIONS,
					       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand_generator(const int64_t *size, int64_t size_len_,
							 AtenGeneratorHandle *generator, PB_OPTIONS,
							 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand_like(AtenTensorHandle self, PB_OPTIONS,
						    int32_t *memory_format, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_rand_like_generator(AtenTensorHandle self,
							      AtenGeneratorHandle *generator,
							      PB_OPTIONS, int32_t *memory_format,
							      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn(const int64_t *size, int64_t size_len_, PB_OPTIONS,
						AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn_generator(const int64_t *size, int64_t size_len_,
							  AtenGeneratorHandle *generator,
							  PB_OPTIONS, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn_like(AtenTensorHandle self, PB_OPTIONS,
						     int32_t *memory_format,
						     AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randn_like_generator(AtenTensorHandle self,
							       AtenGeneratorHandle *generator,
							       PB_OPTIONS, int32_t *memory_format,
							       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint(int64_t high, const int64_t *size,
						  int64_t size_len_, PB_OPTIONS,
						  AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_generator(int64_t high, const int64_t *size,
							    int64_t size_len_,
							    AtenGeneratorHandle *generator,
							    PB_OPTIONS, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_low(int64_t low, int64_t high,
						      const int64_t *size, int64_t size_len_,
						      PB_OPTIONS, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_low_out(AtenTensorHandle out, int64_t low,
							  int64_t high, const int64_t *size,
							  int64_t size_len_);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_like(AtenTensorHandle self, int64_t high,
						       PB_OPTIONS, int32_t *memory_format,
						       AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randint_like_low_dtype(AtenTensorHandle self, int64_t low,
								 int64_t high, PB_OPTIONS,
								 int32_t *memory_format,
								 AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_randperm(int64_t n, PB_OPTIONS, AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_uniform(AtenTensorHandle self, double from, double to,
						  AtenGeneratorHandle *generator,
						  AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_normal_functional(AtenTensorHandle self, double mean,
							    double std,
							    AtenGeneratorHandle *generator,
							    AtenTensorHandle *ret0);

AOTI_EXPORT AOTITorchError aoti_torch_cpu_exponential(AtenTensorHandle self, double lambd,
						      AtenGeneratorHandle *generator,
						      AtenTensorHandle *ret0);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_bernoulli__float(AtenTensorHandle self, double p,
							   AtenGeneratorHandle *generator);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_bernoulli__Tensor(AtenTensorHandle self,
							    AtenTensorHandle p,
							    AtenGeneratorHandle *generator);
AOTI_EXPORT AOTITorchError aoti_torch_cpu_native_dropout(AtenTensorHandle input, double p,
							 int32_t *train, AtenTensorHandle *ret0,
							 AtenTensorHandle *ret1);

#ifdef __cplusplus
}
#endif
#endif
