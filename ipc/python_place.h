/* SPDX-License-Identifier: Apache-2.0 */
/* Where the host of operators in Python lies on this machine. Found by looking at folders, as torch_place.h does. */
#ifndef PT2BOX_IPC_PYTHON_PLACE_H
#define PT2BOX_IPC_PYTHON_PLACE_H

#include <limits.h>
#include <stdbool.h>

struct pb_python_place {
	char path[PATH_MAX]; /* what the host is started with, absolute; "": none */
	char text[400];	     /* why there is none, or how it was found: for people */
};

/* False: there is none. */
bool pb_python_find(struct pb_python_place *ret);

#endif
