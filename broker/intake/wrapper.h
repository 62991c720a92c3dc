/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the generated C++ text of a package says about the model: inputs, outputs, constants, call spec, and how it was
 * compiled. The C ABI tells none of it before code runs. A hand-written scanner, line by line, in linear time.
 *
 * The text is a hint that its author may have written by hand. Where it is not of the shape that PyTorch writes, the answer
 * is "unknown" (has_signature, has_constants false), never a guess.
 * Source: torch/_inductor/codegen/cpp_wrapper_cpu.py, versions 2.6 to 2.13.
 */
#ifndef PT2BOX_BROKER_INTAKE_WRAPPER_H
#define PT2BOX_BROKER_INTAKE_WRAPPER_H

#include "broker/intake/arena.h"
#include "ipc/manifest.h"

struct pb_wrapper {
	bool has_counts;
	uint32_t n_inputs, n_outputs;
	bool has_signature;
	struct pb_sig_input *inputs; /* n_inputs; unknown ones without has_signature. Memory: the arena */
	bool has_constants;
	struct pb_constant *constants; /* blob_offset is not set */
	uint32_t n_constants;
	const char *opaque_constant; /* name of one whose layout only oneDNN knows; NULL: none */
	const char *in_spec, *out_spec; /* "" unknown */
	bool minimal_arrayref;
};

/* false: no memory. */
bool pb_wrapper_scan(const char *text, size_t bytes, struct pb_arena *a, struct pb_wrapper *ret);

struct pb_build {
	uint32_t openmp_threads; /* 0: the text does not limit them */
	bool tiles;		 /* it has AMX instructions by name; compilers emit none of their own accord */
	char command[8192];	 /* the flags of the last compilation, "" if not found; cut if longer */
};
/* What the end of a wrapper.cpp or kernel.cpp, and the loops in it, say. Adds to *ret. */
void pb_wrapper_scan_build(const char *text, size_t bytes, struct pb_build *ret);

#endif
