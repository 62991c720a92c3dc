/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See library.h. Most is the C ABI; four functions are C++ of libtorch, called by their mangled names because the ABI has
 * none for it: the default generator and its seed, and whether oneDNN is used. The number of threads is told to OpenMP and MKL,
 * where at::get_num_threads() finds it: at::set_num_threads() would start a pool, and no thread may be left before a fork.
 */
#include "torch/library.h"

#include <dlfcn.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define F32 6
#define F64 7
#define BF16 15
#define CPU 0
#define WARM_SIZE 192 /* large enough for a team of threads, small enough for a millisecond */

static struct {
	int (*mkl_set_threads)(int n); /* of the calling thread */
	void (*mkl_set_dynamic)(int on);
	void *const *(*default_generator)(void);	   /* at::detail::getDefaultCPUGenerator(): one pointer */
	void (*set_seed)(void *generator, uint64_t seed); /* at::CPUGeneratorImpl::set_current_seed(uint64_t) */
	void *(*context)(void);				   /* at::globalContext() */
	void (*use_mkldnn)(void *context, bool on);	   /* at::Context::setUserEnabledMkldnn(bool) */
	void (*set_grad_mode)(bool on);
	AOTITorchError (*empty)(int64_t ndim, const int64_t *sizes, const int64_t *strides, int32_t dtype, int32_t device,
				int32_t index, AtenTensorHandle *ret);
	AOTITorchError (*zero)(AtenTensorHandle t);
	AOTITorchError (*mm_out)(AtenTensorHandle out, AtenTensorHandle a, AtenTensorHandle b);
	AOTITorchError (*convolution)(AtenTensorHandle input, AtenTensorHandle weight, AtenTensorHandle *bias,
				      const int64_t *stride, int64_t n_stride, const int64_t *padding, int64_t n_padding,
				      const int64_t *dilation, int64_t n_dilation, int32_t transposed,
				      const int64_t *output_padding, int64_t n_output_padding, int64_t groups,
				      AtenTensorHandle *ret);
	AOTITorchError (*delete_tensor)(AtenTensorHandle t);
	const char *(*last_error)(void);
	bool no_jit;
} torch;

struct entry {
	const char *name;
	void *field;
	bool required;
};

static const struct entry entries[] = {
	{"MKL_Set_Num_Threads_Local", &torch.mkl_set_threads, false},
	{"MKL_Set_Dynamic", &torch.mkl_set_dynamic, false},
	{"_ZN2at6detail22getDefaultCPUGeneratorEv", &torch.default_generator, true},
	{"_ZN2at16CPUGeneratorImpl16set_current_seedEm", &torch.set_seed, true},
	{"_ZN2at13globalContextEv", &torch.context, true},
	{"_ZN2at7Context20setUserEnabledMkldnnEb", &torch.use_mkldnn, true},
	{"aoti_torch_grad_mode_set_enabled", &torch.set_grad_mode, true},
	{"aoti_torch_empty_strided", &torch.empty, true},
	{"aoti_torch_zero_", &torch.zero, true},
	{"aoti_torch_cpu_mm_out", &torch.mm_out, false},
	{"aoti_torch_cpu_convolution", &torch.convolution, false},
	{"aoti_torch_delete_tensor_object", &torch.delete_tensor, true},
};

/* Kept per thread. */
static void enter_thread(int threads)
{
	if (torch.mkl_set_threads)
		torch.mkl_set_threads(threads);
	torch.set_grad_mode(false);
}

static void seed(uint64_t value)
{
	torch.set_seed(*torch.default_generator(), value);
}

/* oneDNN does not say what it lacked. */
static const char *last_error(void)
{
	static char text[400];
	const char *why = torch.last_error();

	if (!torch.no_jit || !why || !strstr(why, "could not create a primitive"))
		return why;
	snprintf(text, sizeof(text), "%.200s: oneDNN compiles it as it runs, which profile strict does not allow", why);
	return text;
}

static void trim(void)
{
	malloc_trim(0);
}

/* Zeros, dense; NULL if there is none. */
static AtenTensorHandle zeros(int64_t ndim, const int64_t *sizes, int32_t dtype)
{
	int64_t strides[4], stride = 1;
	AtenTensorHandle t = NULL;

	for (int64_t i = ndim - 1; i >= 0; i--) {
		strides[i] = stride;
		stride *= sizes[i];
	}
	if (torch.empty(ndim, sizes, strides, dtype, CPU, -1, &t))
		return NULL;
	torch.zero(t);
	return t;
}

static void drop(AtenTensorHandle t)
{
	if (t)
		torch.delete_tensor(t);
}

static void warm_product(int32_t dtype)
{
	const int64_t sizes[] = {WARM_SIZE, WARM_SIZE};
	AtenTensorHandle a = zeros(2, sizes, dtype), b = zeros(2, sizes, dtype), c = zeros(2, sizes, dtype);

	if (torch.mm_out && a && b && c)
		torch.mm_out(c, a, b);
	drop(a);
	drop(b);
	drop(c);
}

/* oneDNN where it may be used: its first kernel looks at CPU and caches. */
static void warm_convolution(void)
{
	const int64_t in_sizes[] = {1, 16, 32, 32}, w_sizes[] = {16, 16, 3, 3};
	const int64_t one[] = {1, 1}, zero[] = {0, 0};
	AtenTensorHandle in = zeros(4, in_sizes, F32), w = zeros(4, w_sizes, F32), out = NULL;

	if (torch.convolution && in && w)
		torch.convolution(in, w, NULL, one, 2, one, 2, one, 2, 0, zero, 2, 1, &out);
	drop(in);
	drop(w);
	drop(out);
}

static void warm_up(void)
{
	warm_product(F32);
	warm_product(F64);
	warm_product(BF16);
	warm_convolution();
	seed(0); /* the generator asks the system for its first seed as it is made */
}

pb_status pb_torch_attach(struct pb_backend *b, bool no_jit, struct pt2box_error *err)
{
	for (size_t i = 0; i < sizeof(entries) / sizeof(entries[0]); i++) {
		void *sym = dlsym(b->lib, entries[i].name);

		if (!sym && entries[i].required)
			return pb_error_set(err, PT2BOX_UNSUPPORTED,
					    "this PyTorch cannot be the backend: it has no %s", entries[i].name);
		memcpy(entries[i].field, &sym, sizeof(sym));
	}
	if (torch.mkl_set_dynamic)
		torch.mkl_set_dynamic(0); /* it would end and start threads between its teams and ours */
	torch.no_jit = no_jit;
	if (no_jit)
		torch.use_mkldnn(torch.context(), false);
	b->enter_thread = enter_thread;
	b->warmup = warm_up;
	b->seed = seed;
	b->trim = trim;
	torch.last_error = b->last_error;
	if (torch.last_error)
		b->last_error = last_error;
	return PT2BOX_OK;
}
