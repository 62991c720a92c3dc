/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Python interpreter of this machine runs operators in Python. Found by looking at folders, as torch_place.h does; it is not
 * started for that. As root only one that nobody but root may change.
 */
#ifndef PT2BOX_IPC_PYTHON_PLACE_H
#define PT2BOX_IPC_PYTHON_PLACE_H

#include <limits.h>
#include <stdbool.h>

#define PB_PYTHON_MINOR 11 /* 3.11, and newer ones: the module pt2box._ops is compiled for them */

struct pb_python_place {
	char path[PATH_MAX]; /* of the interpreter, as it was found, since it takes its packages from beside that; "": none */
	char version[16];    /* "3.11"; "": unknown */
	char text[400];	     /* why there is none, or how it was found: for people */
};

/* PT2BOX_PYTHON, else the Python of VIRTUAL_ENV, else the first on the PATH. False: there is none. */
bool pb_python_find(struct pb_python_place *ret);

#endif
