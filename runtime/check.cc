// SPDX-License-Identifier: Apache-2.0
// The one function of the ABI that may not return: a model's assertion. Generated code relies on an exception, which its
// own entry points catch; from C there is no way but abort().
#include <stdexcept>

#include "runtime/abi.h"
#include "runtime/tensor.h"

void aoti_torch_check(bool cond, const char *func, const char *file, uint32_t line, const char *msg)
{
	(void)func;
	(void)file;
	(void)line;
	if (__builtin_expect(cond, true))
		return;
	if (!msg)
		msg = "a check of the model failed";
	pb_rt_fail("%s", msg);
	throw std::runtime_error(msg);
}
