/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where PyTorch's library lies on this machine. Found by looking at folders, in the environment of whoever asks: no
 * interpreter is run. What is found is code that will be loaded with the asker's rights.
 */
#ifndef PT2BOX_IPC_TORCH_PLACE_H
#define PT2BOX_IPC_TORCH_PLACE_H

#include <limits.h>
#include <stdbool.h>

struct pb_torch_place {
	char path[PATH_MAX]; /* of libtorch_cpu.so, absolute; "": none */
	char version[32];    /* as the package says; "": it does not */
	char text[400];	     /* why there is none, or how it was found: for people */
};

/*
 * PT2BOX_TORCH (the folder with libtorch_cpu.so, or the package's) alone if it is set; else the package of VIRTUAL_ENV,
 * of the first Python on the PATH that has one, or of the user. For root only what nobody else may change.
 * False: there is none.
 */
bool pb_torch_find(struct pb_torch_place *ret);
/* Nobody but root may change what lies at @path, or put something else there. False: @text says so. */
bool pb_place_is_roots(const char *path, char text[400]);

#endif
