/* SPDX-License-Identifier: Apache-2.0 */
/* Storages: what tensors share. Reference counted. */
#ifndef PT2BOX_RUNTIME_STORAGE_H
#define PT2BOX_RUNTIME_STORAGE_H

#include <stdint.h>

#include "runtime/tensor.h"

/* Uninitialized memory; in a run, in the output window where the last run says so. NULL with the
 * error set. */
struct pb_rt_storage *pb_rt_storage_new(uint64_t bytes);
/* Memory of somebody else, which must outlive the storage. NULL with the error set. */
struct pb_rt_storage *pb_rt_storage_borrow(void *base, uint64_t bytes);
void pb_rt_storage_unref(struct pb_rt_storage *s);

#endif
