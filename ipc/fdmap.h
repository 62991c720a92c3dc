/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The numbers of the descriptors that the spawner gives to a role binary, and nothing else is open in it. Policies name
 * these numbers, so a filter can tell the control socket from anything a process might be sent.
 */
#ifndef PT2BOX_IPC_FDMAP_H
#define PT2BOX_IPC_FDMAP_H

enum pb_fd_common { PB_FD_STDERR = 2 };

/* pt2box-worker: the warden, which forks the template, which forks the workers. */
enum pb_fd_worker {
	PB_FD_TEMPLATE_CTL = 3, /* template to broker; closed in the warden and in workers */
	PB_FD_WORKER_CTL = 4,	/* worker to broker; free in the template until it forks: the lowest free number */
	PB_FD_WARDEN_LINK = 5,	/* template to warden: the listener, then the pids of workers */
	PB_FD_WARDEN_CTL = 6,	/* warden to broker */
	PB_FD_MODEL = 7,	/* sealed model.so */
	PB_FD_CONSTANTS = 8,	/* sealed constants, may be empty */
	PB_FD_MANIFEST = 9,	/* sealed manifest */
	PB_FD_BOARD = 10,	/* one page written by the broker: a futex that says "look at your control socket" */
	PB_FD_LINK_PEER = 11,	/* warden's end of the link */
};

/* pt2box-intake. */
enum pb_fd_intake {
	PB_FD_RESULT = 3,
	PB_FD_PACKAGE = 4,
	PB_FD_OUT_MODEL = 5,
	PB_FD_OUT_CONSTANTS = 6,
	PB_FD_OUT_MANIFEST = 7,
	PB_FD_CONSTANTS_FILE = 8, /* optional */
};

/* pt2box-intake --constants: new constants for a loaded model. */
enum pb_fd_intake_constants {
	PB_FD_IN_MANIFEST = 4,
	PB_FD_IN_FILE = 5,	  /* safetensors */
	PB_FD_IN_OUT = 6,	  /* the constants' memory, then one byte a constant, 1: it was given */
	PB_FD_IN_BASE = 7,	  /* sealed: what is not given comes from here */
	PB_FD_IN_PARAMETERS = 8, /* sealed: the same, for parameters */
};

/* pt2box-ops. */
enum pb_fd_ops {
	PB_FD_OPS_CTL = 3,	/* to the broker */
	PB_FD_OPS_MANIFEST = 4, /* sealed */
	PB_FD_OPS_BOARD = 5,	/* the template's: rings for control messages */
	PB_FD_OPS_PLUGIN = 6,	/* the client's file; it may change at any time */
	PB_FD_OPS_COPY = 7,	/* made by the process itself: what is checked and linked */
	PB_FD_OPS_NAMES = 8,	/* /proc/self/fd, until the copy is linked: the linker takes names only */
};

/* pt2box-intake --compare. */
enum pb_fd_intake_compare { PB_FD_IN_ONE = 4, PB_FD_IN_OTHER = 5 };

#endif
