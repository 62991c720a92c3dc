/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The serving half of a worker: waits for requests in its lanes, checks them, runs the model, hands out the outputs.
 * One thread. Runs in a process whose memory untrusted code may have written: correctness here serves honest models; the
 * client and the broker believe nothing of it.
 */
#ifndef PT2BOX_WORKER_SERVE_H
#define PT2BOX_WORKER_SERVE_H

#include "ipc/board.h"
#include "worker/model.h"

/* Put the handler that tells a store into read-only inputs from a crash. Before the run filter: it needs rt_sigaction. */
void pb_serve_install_fault_handler(void);
/* Serve until the broker closes the control socket; never returns. */
_Noreturn void pb_serve(struct pb_model *m, uint32_t worker, const struct pb_board *board);

#endif
