/* SPDX-License-Identifier: Apache-2.0 */
/* Which host a file of operators is for. */
#ifndef PT2BOX_PROXY_WANTS_H
#define PT2BOX_PROXY_WANTS_H

#include <stdint.h>

/*
 * "torch": a library that is linked with PyTorch's; "python": not a library; "": a plugin, or nothing that any host takes.
 * @file: hostile bytes.
 */
const char *pb_ops_wants(const uint8_t *file, uint64_t bytes);

#endif
