/* SPDX-License-Identifier: Apache-2.0 */
/* Outputs of a run as arrays of a file: out0, out1, ... None has no array; the others keep their numbers. */
#include <stdlib.h>

#include "client/cmd/cmd.h"

pb_status cmd_outputs_write(int fd, enum pb_format format, struct pt2box_tensor *const *t, size_t n, int64_t padded,
			    int64_t rows, struct pt2box_error *err)
{
	struct pb_array_view *v = calloc(n + 1, sizeof(*v));
	int64_t (*sizes)[PT2BOX_MAX_DIMS] = calloc(n + 1, sizeof(*sizes));
	char (*names)[24] = calloc(n + 1, sizeof(*names));
	size_t k = 0;
	pb_status st = v && names && sizes ? PT2BOX_OK : pb_error_set(err, PT2BOX_NO_MEMORY, "out of memory");

	for (size_t i = 0; i < n && !st; i++) {
		const struct pt2box_tensor_info *info;

		if (!t[i])
			continue;
		info = pt2box_tensor_get_info(t[i]);
		for (int32_t d = 0; d < info->ndim; d++)
			sizes[k][d] = info->sizes[d];
		if (padded && (info->ndim < 1 || info->sizes[0] != padded))
			st = pb_error_set(err, PT2BOX_UNSUPPORTED,
					  "output %zu has no row for each row of the input: run it once for each file instead", i);
		else if (padded)
			sizes[k][0] = rows;
		snprintf(names[k], sizeof(names[k]), "out%zu", i);
		v[k] = (struct pb_array_view){names[k], info->dtype, info->ndim, sizes[k], info->strides, info->data};
		k++;
	}
	if (!st)
		st = pb_arrays_write(fd, format, v, k, err);
	free(v);
	free(sizes);
	free(names);
	return st;
}
