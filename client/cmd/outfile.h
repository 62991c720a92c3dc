/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file that appears whole or not at all. It is written without a name (O_TMPFILE), so that nothing is left however the
 * command ends; where the file system cannot do that, under a hidden name that SIGINT, SIGTERM and SIGHUP remove.
 */
#ifndef PT2BOX_CMD_OUTFILE_H
#define PT2BOX_CMD_OUTFILE_H

#include "ipc/status.h"

struct cmd_outfile {
	const char *path; /* borrowed; NULL: nothing is open */
	char *temp;	  /* name it has now, or for a moment in commit */
	int fd;
	int named;
};

/* Before anything else is done, so that a folder that cannot be written is found at once. */
PB_CHECK pb_status cmd_outfile_open(const char *path, struct cmd_outfile *ret, struct pt2box_error *err);
/* Give it its name, in place of what had it before. */
PB_CHECK pb_status cmd_outfile_commit(struct cmd_outfile *f, struct pt2box_error *err);
/* Without commit: nothing was ever there. */
void cmd_outfile_deinit(struct cmd_outfile *f);

#endif
