/* SPDX-License-Identifier: Apache-2.0 */
/* Element types in four notations: ours (PyTorch's numbers), the buffer protocol's, DLPack's,
 * numpy's. */
#include <string.h>

#include "python/src/core.h"

static struct dtype table[] = {
	{PT2BOX_UINT8, "B", "uint8", DL_UINT, 8, NULL},
	{PT2BOX_INT8, "b", "int8", DL_INT, 8, NULL},
	{PT2BOX_INT16, "h", "int16", DL_INT, 16, NULL},
	{PT2BOX_INT32, "i", "int32", DL_INT, 32, NULL},
	{PT2BOX_INT64, "l", "int64", DL_INT, 64, NULL},
	{PT2BOX_FLOAT16, "e", "float16", DL_FLOAT, 16, NULL},
	{PT2BOX_FLOAT32, "f", "float32", DL_FLOAT, 32, NULL},
	{PT2BOX_FLOAT64, "d", "float64", DL_FLOAT, 64, NULL},
	{PT2BOX_COMPLEX32, "I", NULL, DL_COMPLEX, 32, NULL},
	{PT2BOX_COMPLEX64, "Zf", "complex64", DL_COMPLEX, 64, NULL},
	{PT2BOX_COMPLEX128, "Zd", "complex128", DL_COMPLEX, 128, NULL},
	{PT2BOX_BOOL, "?", "bool", DL_BOOL, 8, NULL},
	{PT2BOX_BFLOAT16, "H", NULL, DL_BFLOAT, 16, NULL},
	{PT2BOX_FLOAT8_E5M2, "B", NULL, DL_FLOAT8_E5M2, 8, NULL},
	{PT2BOX_FLOAT8_E4M3FN, "B", NULL, DL_FLOAT8_E4M3FN, 8, NULL},
	{PT2BOX_UINT16, "H", "uint16", DL_UINT, 16, NULL},
	{PT2BOX_UINT32, "I", "uint32", DL_UINT, 32, NULL},
	{PT2BOX_UINT64, "L", "uint64", DL_UINT, 64, NULL},
};

struct dtype *dtype_get(int32_t number)
{
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].number == number)
			return &table[i];
	return NULL;
}

static int32_t integer(bool is_signed, Py_ssize_t itemsize)
{
	switch (itemsize) {
	case 1:
		return is_signed ? PT2BOX_INT8 : PT2BOX_UINT8;
	case 2:
		return is_signed ? PT2BOX_INT16 : PT2BOX_UINT16;
	case 4:
		return is_signed ? PT2BOX_INT32 : PT2BOX_UINT32;
	case 8:
		return is_signed ? PT2BOX_INT64 : PT2BOX_UINT64;
	default:
		return -1;
	}
}

int32_t dtype_from_format(const char *f, Py_ssize_t itemsize)
{
	if (!f)
		return PT2BOX_UINT8; /* the protocol's default: bytes */
	if (*f == '@' || *f == '=' || *f == '<' || *f == '|' ||
	    (itemsize == 1 && (*f == '>' || *f == '!')))
		f++;
	if (f[0] == 'Z')
		return f[1] == 'f' ? PT2BOX_COMPLEX64 : f[1] == 'd' ? PT2BOX_COMPLEX128 : -1;
	if (f[0] == '\0' || f[1] != '\0')
		return -1;
	if (strchr("bhilqn", *f))
		return integer(true, itemsize);
	if (strchr("BHILQN", *f))
		return integer(false, itemsize);
	switch (*f) {
	case 'e':
		return PT2BOX_FLOAT16;
	case 'f':
		return PT2BOX_FLOAT32;
	case 'd':
		return PT2BOX_FLOAT64;
	case '?':
		return PT2BOX_BOOL;
	default:
		return -1;
	}
}

int32_t dtype_from_dlpack(struct dl_type t)
{
	if (t.lanes != 1)
		return -1;
	for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].dl_code == t.code && table[i].dl_bits == t.bits)
			return table[i].number;
	return -1;
}

/* numpy.dtype(name), or that of ml_dtypes if it is installed. */
static PyObject *look_up(const struct dtype *d)
{
	const char *name = d->numpy_name ? d->numpy_name : pt2box_dtype_name(d->number);
	PyObject *numpy = PyImport_ImportModule("numpy"), *more = NULL, *type = NULL, *ret = NULL;

	if (!numpy)
		return NULL;
	if (!d->numpy_name) {
		more = PyImport_ImportModule("ml_dtypes");
		type = more ? PyObject_GetAttrString(more, name) : NULL;
		if (!type)
			PyErr_Clear();
		else
			ret = PyObject_CallMethod(numpy, "dtype", "O", type);
	} else {
		ret = PyObject_CallMethod(numpy, "dtype", "s", name);
	}
	Py_XDECREF(type);
	Py_XDECREF(more);
	Py_DECREF(numpy);
	return ret;
}

PyObject *dtype_numpy(struct dtype *d)
{
	if (!d->numpy)
		d->numpy = look_up(d);
	return d->numpy;
}
