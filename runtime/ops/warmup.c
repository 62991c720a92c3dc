/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What must have happened once before a sandbox closes: the choice of kernels by CPU, a product and
 * a convolution of ordinary size, so that the pages of the code and of the first scratch memory are
 * there.
 */
#include <string.h>

#include "runtime/ops/conv.h"
#include "runtime/ops/heavy.h"
#include "runtime/ops/matmul.h"
#include "runtime/tensor.h"

static void warm_product(void)
{
	struct pb_rt_tensor *a = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){64, 64}, NULL);
	struct pb_rt_tensor *c = pb_rt_empty(PB_RT_F32, 2, (int64_t[]){64, 64}, NULL);

	if (a && c) {
		memset(pb_rt_data(a), 0, 64 * 64 * sizeof(float));
		(void)aoti_torch_cpu_mm_out(c, a, a);
	}
	pb_rt_delete(a);
	pb_rt_delete(c);
}

static void warm_convolution(void)
{
	const int64_t one[2] = {1, 1}, zero[2] = {0, 0};
	struct pb_rt_tensor *x = pb_rt_empty(PB_RT_F32, 4, (int64_t[]){1, 8, 16, 16}, NULL),
			    *y = NULL;
	struct pb_rt_tensor *w = pb_rt_empty(PB_RT_F32, 4, (int64_t[]){8, 8, 3, 3}, NULL);

	if (x && w) {
		memset(pb_rt_data(x), 0, x->numel * sizeof(float));
		memset(pb_rt_data(w), 0, w->numel * sizeof(float));
		if (!aoti_torch_cpu_convolution(x, w, NULL, one, 2, one, 2, one, 2, 0, zero, 2, 1,
						&y))
			pb_rt_delete(y);
	}
	pb_rt_delete(x);
	pb_rt_delete(w);
}

void pb_rt_ops_warmup(void)
{
	(void)pb_gemm_isa();
	warm_product();
	warm_convolution();
}
