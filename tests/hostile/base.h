/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model for the tests of the sandbox: enough of AOTInductor's C ABI to be loaded and run, with an attack() that the
 * including file defines. One input float32[16], one output: twice the input, plus the constants if it has any.
 *
 * AT says when the attack happens; each source is compiled once for each: in a constructor, while the container is made,
 * in the dry run (an input of zeros), in a run (an input that begins with 666). An attack returns 0 if it was refused
 * softly or does no harm, anything else if it got what it wanted: the model then fails with those words.
 *
 * A file that defines ON_UPDATE, a function, has it called whenever the constants are set; not 0: they are refused.
 *
 * Attacks are harmless where a sandbox fails: they look at /etc/hostname, talk to the loopback address, and all bombs are
 * bounded.
 */
#ifndef TESTS_HOSTILE_BASE_H
#define TESTS_HOSTILE_BASE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define AT_CONSTRUCT 0
#define AT_CREATE 1
#define AT_DRY 2
#define AT_RUN 3
#ifndef AT
#error "compile with -DAT=0 to 3"
#endif

#define N 16
#define MAGIC 666.0f

/* The runtime's side of the ABI (shim.h of torch 2.13.0). */
typedef struct AtenTensorOpaque *AtenTensorHandle;
int32_t aoti_torch_empty_strided(int64_t ndim, const int64_t *sizes, const int64_t *strides, int32_t dtype,
				 int32_t device_type, int32_t device_index, AtenTensorHandle *ret);
int32_t aoti_torch_get_data_ptr(AtenTensorHandle t, void **ret);
int32_t aoti_torch_delete_tensor_object(AtenTensorHandle t);

static int attack(void);

/* The run in which the attack happens; NULL in a constructor and while the container is made. */
static struct {
	float *in, *out;
} now __attribute__((unused));

static const char *failure = "";

static void do_attack(void)
{
	if (attack())
		failure = "the attack got what it wanted";
}

#if AT == AT_CONSTRUCT
__attribute__((constructor)) static void hostile_constructor(void)
{
	do_attack();
}
#endif

/* ---- constants: one float32[1024], if the including file asks for it ---- */

#if defined(CONSTANTS_EMBEDDED)
#define HAS_CONSTANTS 1
/* As the compiler's own packages have it: in the file, in .lrodata. */
__asm__(".section .lrodata,\"a\",@progbits\n"
	".balign 64\n"
	".globl _binary_constants_bin_start\n"
	"_binary_constants_bin_start:\n"
	".set i, 0\n"
	".rept 1024\n"
	".float 0.25\n"
	".endr\n"
	".globl _binary_constants_bin_end\n"
	"_binary_constants_bin_end:\n"
	".previous\n");
extern float _binary_constants_bin_start[];
static float *weights = NULL;
#elif defined(CONSTANTS_BLOB)
#define HAS_CONSTANTS 1
/* Their size is all that the code has. */
__asm__(".section .lrodata,\"a\",@progbits\n"
	".balign 64\n"
	".globl _binary_constants_bin_start\n"
	"_binary_constants_bin_start:\n"
	".quad 4096\n"
	".globl _binary_constants_bin_end\n"
	"_binary_constants_bin_end:\n"
	".previous\n");
static float *weights = NULL;
#else
#define HAS_CONSTANTS 0
static float *weights = NULL;
#endif

#define ABI(name) __attribute__((visibility("default"))) int32_t AOTInductorModelContainer##name

struct constant_entry {
	const char *name;
	AtenTensorHandle handle;
};

#ifndef OWN_BUFFERS /* the including file has a container with two buffers of its own */
ABI(UpdateUserManagedConstantBufferPairs)(void *c, const struct constant_entry *e, size_t n, bool inactive, bool validate)
{
	void *p = NULL;

	(void)c;
	(void)inactive;
	(void)validate;
	for (size_t i = 0; i < n; i++)
		if (strcmp(e[i].name, "w") == 0 && aoti_torch_get_data_ptr(e[i].handle, &p) == 0)
			weights = p;
#ifdef ON_UPDATE
	if (ON_UPDATE())
		return 1;
#endif
	return weights == NULL;
}
#endif

/* ---- the container ---- */

static int container;

ABI(CreateWithDevice)(void **ret, size_t num_models, const char *device, const char *cubin_dir)
{
	(void)num_models;
	(void)device;
	(void)cubin_dir;
#if defined(CONSTANTS_EMBEDDED)
	weights = _binary_constants_bin_start;
#endif
	if (AT == AT_CREATE)
		do_attack();
	*ret = &container;
	return failure[0] != '\0';
}

ABI(Delete)(void *c)
{
	(void)c;
	return 0;
}

ABI(GetNumInputs)(void *c, size_t *ret)
{
	(void)c;
	*ret = 1;
	return 0;
}

ABI(GetNumOutputs)(void *c, size_t *ret)
{
	(void)c;
	*ret = 1;
	return 0;
}

ABI(GetNumConstants)(void *c, size_t *ret)
{
	(void)c;
	*ret = HAS_CONSTANTS;
	return 0;
}

ABI(GetInputName)(void *c, size_t i, const char **ret)
{
	(void)c;
	(void)i;
	*ret = "arg0_1";
	return 0;
}

ABI(GetOutputName)(void *c, size_t i, const char **ret)
{
	(void)c;
	(void)i;
	*ret = "output0";
	return 0;
}

ABI(GetConstantName)(void *c, size_t i, const char **ret)
{
	(void)c;
	(void)i;
	*ret = "w";
	return 0;
}

ABI(GetConstantOriginalFQN)(void *c, size_t i, const char **ret)
{
	(void)c;
	(void)i;
	*ret = "w";
	return 0;
}

ABI(GetConstantDtype)(void *c, size_t i, int32_t *ret)
{
	(void)c;
	(void)i;
	*ret = 6;
	return 0;
}

ABI(GetConstantDataSize)(void *c, size_t i, size_t *ret)
{
	(void)c;
	(void)i;
	*ret = 4096;
	return 0;
}

ABI(GetConstantFromFolded)(void *c, size_t i, bool *ret)
{
	(void)c;
	(void)i;
	*ret = false;
	return 0;
}

ABI(GetCallSpec)(void *c, const char **in, const char **out)
{
	(void)c;
	*in = "[1, {\"type\": \"builtins.tuple\", \"context\": \"null\", \"children_spec\": []}]";
	*out = "[1, {\"type\": null, \"context\": null, \"children_spec\": []}]";
	return 0;
}

static void run_attack(float *in, float *out)
{
	now.in = in;
	now.out = out;
	if ((AT == AT_DRY && in[0] == 0.0f) || (AT == AT_RUN && in[0] == MAGIC))
		do_attack();
}

ABI(RunSingleThreaded)(void *c, AtenTensorHandle *in, size_t n_in, AtenTensorHandle *out, size_t n_out, void *stream,
		       void *proxy)
{
	static const int64_t size = N, stride = 1;
	void *x, *y;

	(void)c;
	(void)stream;
	(void)proxy;
	failure = "";
	if (n_in != 1 || n_out != 1 || aoti_torch_get_data_ptr(in[0], &x) ||
	    aoti_torch_empty_strided(1, &size, &stride, 6, 0, -1, &out[0]) || aoti_torch_get_data_ptr(out[0], &y))
		return 1;
#ifdef BEFORE_RUN
	BEFORE_RUN(x);
#endif
	for (int i = 0; i < N; i++)
		((float *)y)[i] = ((float *)x)[i] * 2 + (weights ? weights[i] : 0);
	run_attack(x, y);
	aoti_torch_delete_tensor_object(in[0]);
	in[0] = NULL;
	return failure[0] != '\0';
}

ABI(Run)(void *c, AtenTensorHandle *in, size_t n_in, AtenTensorHandle *out, size_t n_out, void *stream, void *proxy)
{
	return AOTInductorModelContainerRunSingleThreaded(c, in, n_in, out, n_out, stream, proxy);
}

ABI(RunConstantFolding)(void *c, bool inactive, void *stream, void *proxy)
{
	(void)c;
	(void)inactive;
	(void)stream;
	(void)proxy;
	return 0;
}

#ifndef OWN_BUFFERS
ABI(SwapConstantBuffer)(void *c)
{
	(void)c;
	return 0;
}
#endif

__attribute__((visibility("default"))) int32_t AOTInductorGetLastError(const char **ret)
{
	*ret = failure;
	return 0;
}

/* Sleep where no call that sleeps is allowed. */
static inline void futex_sleep_ms(long ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000};
	uint32_t word = 0;

	syscall(SYS_futex, &word, 128 /* FUTEX_WAIT | PRIVATE */, 0, &ts, NULL, 0);
}

#endif
