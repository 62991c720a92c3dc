/* SPDX-License-Identifier: Apache-2.0 */
/* M29: a C++ exception through the C ABI, raised by hand. */
/* ldflags: -lstdc++ */
#include "tests/hostile/base.h"

void *__cxa_allocate_exception(size_t size);
_Noreturn void __cxa_throw(void *object, void *type, void (*destructor)(void *));
extern char _ZTIi; /* typeinfo for int */

static int attack(void)
{
	int *e = __cxa_allocate_exception(sizeof(int));

	*e = 1;
	__cxa_throw(e, &_ZTIi, NULL);
}
