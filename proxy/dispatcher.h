/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host of libraries that register operators with PyTorch (TORCH_LIBRARY): the dispatcher's operators as entries of the
 * host's table. PyTorch's library is loaded and used once while files and threads are there; the library that the client
 * brought registers its operators when its constructors run.
 */
#ifndef PT2BOX_PROXY_DISPATCHER_H
#define PT2BOX_PROXY_DISPATCHER_H

#include "proxy/host.h"

/* Before the sandbox closes: load PyTorch's library at @path, warm it up on a thread that ends. UNSUPPORTED: it cannot be used. */
PB_CHECK pb_status pb_dispatcher_load(const char *path, struct pt2box_error *err);
/* For struct pb_host_options. */
extern const struct pb_host_provider pb_dispatcher_provider;

#endif
