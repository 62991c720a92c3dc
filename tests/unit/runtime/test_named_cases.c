/* SPDX-License-Identifier: Apache-2.0 */
/* Small calls of operators that models call by name against the answers of torch 2.13.0: named_cases.inc, which
 * make_named_cases.py makes. */
#include "runtime/proxy.h"
#include "tests/unit/runtime/cases.h"

/* After the seed that PyTorch had. */
static int named(const char *target, const struct pt2box_op_value *args, uint32_t n_args, struct pb_rt_tensor **ret,
		 uint32_t n_ret)
{
	const struct pb_proxy_call c = {target, args, n_args, ret, n_ret};
	pb_proxy_fn *fn = pb_proxy_find(target);

	assert_non_null(fn);
	pb_rt_seed(17);
	return fn(&c);
}

#define GIVEN(t)                                                                                                       \
	{                                                                                                              \
		.kind = PT2BOX_OP_TENSOR, .v.tensor = &(struct pt2box_op_tensor) { pb_rt_data(t), (t)->sizes,          \
			(t)->strides, (t)->dtype, (t)->ndim, (t) }                                                     \
	}

#include "tests/unit/runtime/named_cases.inc"

int main(void)
{
	return cmocka_run_group_tests(case_tests, NULL, NULL);
}
