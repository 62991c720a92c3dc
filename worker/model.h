/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One model in this process: the loaded model.so, its container, its constants. Made in the template, inherited by the
 * workers. From pb_model_construct() on, untrusted code runs in here; nothing in this file is a boundary, the filter is.
 */
#ifndef PT2BOX_WORKER_MODEL_H
#define PT2BOX_WORKER_MODEL_H

#include <stddef.h>
#include <stdint.h>

#include "ipc/manifest.h"
#include "worker/backend.h"

struct pb_aoti_constant {
	const char *name;
	AtenTensorHandle handle;
};

typedef int32_t (*pb_aoti_run)(void *container, AtenTensorHandle *in, size_t n_in, AtenTensorHandle *out, size_t n_out,
			       void *stream, void *proxy);

struct pb_model {
	struct pb_backend *backend;
	const struct pb_manifest *manifest;
	void *lib;
	void *container;
	size_t n_inputs, n_outputs, n_constants;
	pb_aoti_run run; /* RunSingleThreaded, or Run where the package has none */
	int32_t (*last_error)(const char **ret);
};

/* Map the sealed model without running any of it: "/model.so" is opened by the warden's answer to the load filter. */
PB_CHECK pb_status pb_model_dlopen(struct pb_model *m, struct pb_backend *b, const struct pb_manifest *manifest,
				   struct pt2box_error *err);
/* Call the constructors that intake took out of the file. The first untrusted instruction. */
void pb_model_construct(struct pb_model *m);
/* Make the container and give it its constants; @consts maps the sealed constants (NULL if there are none). */
PB_CHECK pb_status pb_model_create(struct pb_model *m, void *consts, uint64_t consts_bytes, struct pt2box_error *err);
/*
 * One run on made-up inputs, so that weights are packed and lazy work is done before the workers are forked. Failures
 * of the model are ignored: a real run will report them.
 */
void pb_model_dry_run(struct pb_model *m);
/* The reason of the last failure, scrubbed of paths of the machine that compiled the package. */
void pb_model_error_text(struct pb_model *m, char *dst, size_t cap);

#endif
