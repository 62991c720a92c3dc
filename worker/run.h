/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request: inputs checked and lent to the model, the run, outputs placed in the client's window.
 */
#ifndef PT2BOX_WORKER_RUN_H
#define PT2BOX_WORKER_RUN_H

#include "ipc/lane.h"
#include "worker/model.h"

struct pb_runner {
	struct pb_model *model;
	bool copy_inputs; /* the package writes its inputs: it gets copies, and they are handed back */
	uint64_t seed;

	AtenTensorHandle *in, *out;
	struct pb_lane_tensor *out_desc;
	struct pb_lane_written *written;
	struct pb_block *blocks;
	void **copies; /* private copies of inputs, NULL entries elsewhere */
	uint64_t *copy_bytes;

	/* Outputs that did not fit their window, kept until the client comes back with a larger one. */
	const struct pb_lane *kept_lane;
	uint32_t kept_slot, kept_seq;
	bool kept;
	bool keeps_nothing; /* a worker for one run: who comes back for its outputs gets a run anew */
};

PB_CHECK pb_status pb_runner_init(struct pb_runner *r, struct pb_model *m, struct pt2box_error *err);
/*
 * Run @q and fill @reply (its arrays point into the runner). The handles of outputs live on until
 * pb_runner_release(), which the caller calls after it has published the reply.
 */
void pb_runner_run(struct pb_runner *r, const struct pb_lane *l, uint32_t slot, uint32_t seq,
		   const struct pb_lane_request *q, struct pb_lane_reply *reply);
void pb_runner_release(struct pb_runner *r);
/* @q asks for the outputs that are kept. */
bool pb_runner_keeps(const struct pb_runner *r, const struct pb_lane *l, uint32_t slot,
		     const struct pb_lane_request *q);
/* Let go of kept outputs. */
void pb_runner_forget(struct pb_runner *r);

#endif
