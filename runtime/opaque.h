/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Constants in oneDNN's own layouts, as packages compiled with freezing=True carry them: brought
 * into rows when the package is loaded, so that every operator sees a plain matrix.
 */
#ifndef PT2BOX_RUNTIME_OPAQUE_H
#define PT2BOX_RUNTIME_OPAQUE_H

#include "runtime/tensor.h"

/*
 * A new contiguous tensor of @sizes with the elements that @data holds as @metadata (oneDNN's
 * memory descriptor, then the number of groups) describes; NULL with the error set. Its memory is
 * promised never to change, and never freed: packed copies go by address.
 */
struct pb_rt_tensor *pb_rt_from_opaque(const void *data, int32_t dtype, int64_t ndim,
				       const int64_t *sizes, const uint8_t *metadata,
				       int64_t metadata_bytes);

#endif
