/* SPDX-License-Identifier: Apache-2.0 */
/* Constants that a caller gives: checked against what the package declares, then put into a file in memory. */
#ifndef PT2BOX_CLIENT_CONSTANTS_H
#define PT2BOX_CLIENT_CONSTANTS_H

#include "client/internal.h"

/*
 * Everything that can be told without the broker, so that nothing is copied in vain. Errors: USAGE, NOT_FOUND, BAD_TENSOR,
 * UNSUPPORTED, NO_MEMORY; the text names the constant.
 */
PB_CHECK pb_status pb_constants_check(const struct pb_manifest *m, const struct pt2box_constant *list, size_t n,
				      uint32_t flags, struct pt2box_error *err);
/* A .safetensors file in sealed memory; names and dtypes have been checked. Elements are copied once. */
PB_CHECK pb_status pb_constants_file(const struct pt2box_constant *list, size_t n, int *ret_fd,
				     struct pt2box_error *err);

#endif
