/* Which libca this process really uses.
 *
 * Linked to libca and libCom like the core, it takes one address in each and asks the dynamic
 * linker which file that address came from. Channel Access is not started.
 */
#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#ifdef _WIN32
#define WIN32_LEAN_AND_MEAN
#include <windows.h>
#else
#include <dlfcn.h>
#endif

#include "cadef.h"
#include "errlog.h"

#ifndef EPICSX_MODE
#define EPICSX_MODE "system"
#define EPICSX_LINKED "dynamic"
#endif
#ifndef EPICSX_GUARDS
#define EPICSX_GUARDS ""
#endif

static PyObject *file_of(const void *address)
{
#ifdef _WIN32
    const DWORD how = GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
    wchar_t name[1024];
    HMODULE file;
    DWORD length;
    if (!GetModuleHandleExW(how, (LPCWSTR) address, &file))
        Py_RETURN_NONE;
    length = GetModuleFileNameW(file, name, sizeof name / sizeof *name);
    if (length == 0 || length == sizeof name / sizeof *name)
        Py_RETURN_NONE;
    return PyUnicode_FromWideChar(name, (Py_ssize_t) length);
#else
    Dl_info info;
    if (!dladdr(address, &info) || info.dli_fname == NULL)
        Py_RETURN_NONE;
    return PyUnicode_DecodeFSDefault(info.dli_fname);
#endif
}

static PyObject *libca_path(PyObject *self, PyObject *unused)
{
    (void) self;
    (void) unused;
    return file_of((const void *) &ca_create_channel);
}

static PyObject *libcom_path(PyObject *self, PyObject *unused)
{
    (void) self;
    (void) unused;
    return file_of((const void *) &errlogFlush);
}

static PyObject *ca_protocol(PyObject *self, PyObject *unused)
{
    (void) self;
    (void) unused;
    return PyUnicode_FromString(ca_version()); /* a constant of the library */
}

static PyMethodDef methods[] = {
    {"ca_protocol", ca_protocol, METH_NOARGS,
     "ca_protocol()\n--\n\nThe version of the CA protocol that libca speaks."},
    {"libca_path", libca_path, METH_NOARGS,
     "libca_path()\n--\n\nThe file from which libca was loaded."},
    {"libcom_path", libcom_path, METH_NOARGS,
     "libcom_path()\n--\n\nThe file from which libCom was loaded."},
    {NULL, NULL, 0, NULL},
};

static int fill(PyObject *module)
{
    if (PyModule_AddStringConstant(module, "MODE", EPICSX_MODE) < 0)
        return -1;
    if (PyModule_AddStringConstant(module, "GUARDS", EPICSX_GUARDS) < 0)
        return -1;
    return PyModule_AddStringConstant(module, "LINKED", EPICSX_LINKED);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, fill},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT,
    .m_name = "epicsx._linkage",
    .m_doc = "Which libca this process uses, and how it was linked.",
    .m_size = 0,
    .m_methods = methods,
    .m_slots = slots,
};

PyMODINIT_FUNC PyInit__linkage(void)
{
    return PyModuleDef_Init(&definition);
}
