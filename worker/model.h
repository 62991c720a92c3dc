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
#include "torch/backend.h"
#include "worker/constants.h"

typedef int32_t (*pb_aoti_run)(void *container, AtenTensorHandle *in, size_t n_in, AtenTensorHandle *out, size_t n_out,
			       void *stream, void *proxy);

struct pb_model {
	struct pb_backend *backend;
	const struct pb_manifest *manifest;
	void *lib;
	void *container;
	void *proxy; /* what calls of operators by name go to; NULL: the backend knows */
	size_t n_inputs, n_outputs, n_constants;
	pb_aoti_run run; /* RunSingleThreaded, or Run where the package has none */
	int32_t (*last_error)(const char **ret);
	struct pb_constants constants;
};

/* Map the sealed model without running any of it: "/model.so" is opened by the warden's answer to the load filter. */
PB_CHECK pb_status pb_model_dlopen(struct pb_model *m, struct pb_backend *b, const struct pb_manifest *manifest,
				   struct pt2box_error *err);
/* Call the constructors that intake took out of the file. The first untrusted instruction. */
void pb_model_construct(struct pb_model *m);
/* Make the container and give it its constants, after pb_constants_prepare(). */
PB_CHECK pb_status pb_model_create(struct pb_model *m, struct pt2box_error *err);
/*
 * Make a change of the constants (taken) in a process that will fork: pb_constants_apply() on a thread that ends, then a
 * dry run that packs the new ones.
 */
PB_CHECK pb_status pb_model_change(struct pb_model *m, struct pb_constants_change *take, struct pt2box_error *err);
/*
 * One run on made-up inputs, so that weights are packed and lazy work is done before the workers are forked. Failures
 * of the model are ignored: a real run will report them.
 */
void pb_model_dry_run(struct pb_model *m);
/* A symbol of the model's own, NULL if it has no such one. */
void *pb_model_sym(const struct pb_model *m, const char *name);
/* MODEL_ERROR with @what and the reason of the last failure. */
pb_status pb_model_failed(struct pb_model *m, const char *what, struct pt2box_error *err);
/* The reason of the last failure, scrubbed of paths of the machine that compiled the package. */
void pb_model_error_text(struct pb_model *m, char *dst, size_t cap);

#endif
