/* SPDX-License-Identifier: Apache-2.0 */
/* Which constants of a model a safetensors file gives, by name, and whether they are what the model declares. */
#ifndef PT2BOX_BROKER_INTAKE_GIVEN_H
#define PT2BOX_BROKER_INTAKE_GIVEN_H

#include <stdbool.h>

#include "broker/intake/safetensors.h"
#include "ipc/manifest.h"

/* What must be given. Parameters without elements are never missed, as in PyTorch, which warns of them. */
enum pb_required { PB_REQUIRED_NONE, PB_REQUIRED_PARAMETERS, PB_REQUIRED_ALL };

/*
 * @names: keys may also be internal names, which come second. @ret: n_constants entries, NULL: not given; borrowed from @f.
 *
 * NOT_FOUND "const.name: ...", unknown or missing ones, by name; BAD_TENSOR, one that is computed from others, or of
 * another dtype or shape, with what it should be; USAGE, one given twice; UNSUPPORTED, the package does not describe its
 * constants; NO_MEMORY.
 */
PB_CHECK pb_status pb_given_match(const struct pb_manifest *m, const struct pb_safetensors *f, bool names,
				  enum pb_required required, const struct pb_stored_tensor **ret,
				  struct pt2box_error *err);

#endif
