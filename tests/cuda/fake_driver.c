/*
 * A libcuda.so.1 for tests on machines without a GPU: the driver's functions that runtime/cuda/driver.h declares, with kernels
 * that are C functions for the processor.
 *
 * It is strict where a real driver is, or may be: device addresses are no addresses of the processor's, and must lie in a live
 * allocation of device memory; calls need a current context; whatever is put into a stream is done when somebody waits for it,
 * not before, and streams know of each other by events only. Data copied from the processor is read at once, as from pageable
 * memory. A kernel that fails makes every later call fail, as on a GPU.
 *
 * A kernel `name` is a function `int32_t name(void *, …)` (0 on success) of the library $CUDA_FAKE_KERNELS, beside an
 * `int32_t name_parameters`, the number of its parameters; all are pointers into device memory. A launch calls it once: the
 * loops over blocks and threads are its own.
 *
 *     CUDA_FAKE_KERNELS     the library of kernels
 *     CUDA_FAKE_LOG         a file that gets a line for each call, and at the end of the process one that counts what is left
 *     CUDA_FAKE_FAIL        function:n:error, …: the n-th call (from 1) of a function gives an error of CUresult
 *     CUDA_FAKE_VERSION     of CUDA; 12020, which is 12.2, if not set
 *     CUDA_FAKE_DEVICES     number of GPUs; 1
 *     CUDA_FAKE_CAPABILITY  compute capability times ten; 87
 *     CUDA_FAKE_MEMORY      bytes of device memory; 2^30
 *     CUDA_FAKE_REFUSE      "cubin", "ptx" or both: the kinds of images that it does not take
 *
 * Compiled with -DCUDA_10_2 it lacks what that version lacks.
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define API __attribute__((visibility("default")))

enum { OUT_OF_MEMORY = 2, INVALID_VALUE = 1, NO_DEVICE = 100, INVALID_CONTEXT = 201, NO_BINARY = 209, UNSUPPORTED_PTX = 222 };
enum { INVALID_HANDLE = 400, NOT_FOUND = 500, NOT_READY = 600, LAUNCH_FAILED = 719, CAPTURE_INVALID = 901 };
enum { MOST_PARAMETERS = 48 };

static const uint64_t DEVICE = (uint64_t)1 << 60; /* device address = address here + this */

typedef enum kind { MEMORY, STREAM, EVENT, GRAPH, EXECUTABLE, MODULE, FUNCTION, KINDS } kind;
static const char *const KIND_NAMES[] = {"memory", "streams", "events", "graphs", "executables", "modules", "functions"};

typedef struct function {
    char name[256];
    void *code;
    int parameters;
} function;

typedef enum work_kind { COPY, LAUNCH, RECORD, WAIT } work_kind;

/* One piece of work in a stream or graph. */
typedef struct work {
    work_kind kind;
    uint64_t number;
    unsigned char *to, *from, *snapshot;
    size_t bytes;
    const function *kernel;
    void *parameters[MOST_PARAMETERS];
    struct object *event, *other; /* other: the stream that is waited for */
    uint64_t until;
    struct work *next;
} work;

typedef struct object {
    kind kind;
    struct object *next;
    unsigned char *data; /* MEMORY */
    size_t bytes;
    work *first, **end;       /* STREAM, GRAPH, EXECUTABLE */
    struct object *capturing; /* STREAM: the graph */
    struct object *stream;    /* EVENT: where it was last put */
    uint64_t number;
    double seconds;
    struct object *module; /* FUNCTION */
    function function;
} object;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static object *objects;
static object default_stream = {.kind = STREAM, .end = &default_stream.first};
static int initialised, retained, failure;
static uint64_t works;
static _Thread_local int depth;
static FILE *record;

static void unlock(int *unused) {
    (void)unused;
    pthread_mutex_unlock(&mutex);
}

static long setting(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text == NULL ? otherwise : strtol(text, NULL, 10);
}

static void note(const char *format, ...) {
    const char *path = getenv("CUDA_FAKE_LOG");
    if (record == NULL && path != NULL) {
        record = fopen(path, "a");
    }
    if (record != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vfprintf(record, format, arguments);
        va_end(arguments);
        fputc('\n', record);
        fflush(record);
    }
}

/* What CUDA_FAKE_FAIL says of this call. */
static int wanted_failure(const char *name, int call) {
    const char *entry = getenv("CUDA_FAKE_FAIL");
    size_t length = strlen(name);
    while (entry != NULL && *entry != '\0') {
        int number, error;
        if (strncmp(entry, name, length) == 0 && sscanf(entry + length, ":%d:%d", &number, &error) == 2 && number == call) {
            return error;
        }
        entry = strchr(entry, ',');
        entry = entry == NULL ? NULL : entry + 1;
    }
    return 0;
}

#define BEGIN(name)                                                                                                      \
    static int calls;                                                                                                    \
    int guard __attribute__((cleanup(unlock), unused)) = pthread_mutex_lock(&mutex);                                     \
    note("%s", #name);                                                                                                   \
    int wanted = wanted_failure(#name, ++calls);                                                                         \
    if (wanted != 0) {                                                                                                   \
        return wanted;                                                                                                   \
    }

/* The same for functions that work in a context. */
#define BEGIN_IN_CONTEXT(name)                                                                                           \
    BEGIN(name)                                                                                                          \
    if (!initialised || depth == 0 || retained == 0) {                                                                   \
        return INVALID_CONTEXT;                                                                                          \
    }                                                                                                                    \
    if (failure != 0) {                                                                                                  \
        return failure;                                                                                                  \
    }

static object *new_object(kind kind) {
    object *made = calloc(1, sizeof *made);
    made->kind = kind;
    made->end = &made->first;
    made->next = objects;
    objects = made;
    return made;
}

static object *known(const void *handle, kind kind) {
    for (object *found = objects; found != NULL; found = found->next) {
        if (found == handle && found->kind == kind) {
            return found;
        }
    }
    return handle == NULL && kind == STREAM ? &default_stream : NULL;
}

static int is_stream(object *stream) { return stream == &default_stream || known(stream, STREAM) != NULL; }

static void forget(object *old) {
    for (object **place = &objects; *place != NULL; place = &(*place)->next) {
        if (*place == old) {
            *place = old->next;
            break;
        }
    }
    while (old->first != NULL) {
        work *next = old->first->next;
        free(old->first->snapshot);
        free(old->first);
        old->first = next;
    }
    free(old->data);
    free(old);
}

/* Where a range of device memory is, null outside of it. */
static unsigned char *translate(uint64_t address, size_t bytes) {
    for (object *found = objects; found != NULL; found = found->next) {
        uint64_t start = (uint64_t)(uintptr_t)found->data + DEVICE;
        if (found->kind == MEMORY && address >= start && address - start + bytes <= found->bytes) {
            return found->data + (address - start);
        }
    }
    return NULL;
}

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static work *add(object *list, work_kind kind) {
    work *added = calloc(1, sizeof *added);
    added->kind = kind;
    added->number = ++works;
    *list->end = added;
    list->end = &added->next;
    return added;
}

/* Functions take no harm from more arguments than they have, in the calling conventions of x86-64 and AArch64. */
static int call(const function *kernel, void **p) {
    typedef int32_t code(void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                         void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                         void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *, void *,
                         void *, void *, void *, void *, void *, void *, void *, void *, void *);
    code *run;
    memcpy(&run, &kernel->code, sizeof run);
    return run(p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], p[8], p[9], p[10], p[11], p[12], p[13], p[14], p[15], p[16], p[17],
               p[18], p[19], p[20], p[21], p[22], p[23], p[24], p[25], p[26], p[27], p[28], p[29], p[30], p[31], p[32], p[33],
               p[34], p[35], p[36], p[37], p[38], p[39], p[40], p[41], p[42], p[43], p[44], p[45], p[46], p[47]);
}

static void finish(object *stream, uint64_t until);

static void perform(work *job) {
    if (failure != 0) {
        return;
    }
    switch (job->kind) {
    case COPY:
        memcpy(job->to, job->snapshot != NULL ? job->snapshot : job->from, job->bytes);
        break;
    case LAUNCH:
        if (call(job->kernel, job->parameters) != 0) {
            failure = LAUNCH_FAILED;
        }
        break;
    case RECORD:
        job->event->seconds = now();
        break;
    case WAIT:
        if (is_stream(job->other)) {
            finish(job->other, job->until);
        }
    }
}

/* Does what is in a stream, up to a number. */
static void finish(object *stream, uint64_t until) {
    while (stream->first != NULL && stream->first->number <= until) {
        work *job = stream->first;
        stream->first = job->next;
        if (stream->first == NULL) {
            stream->end = &stream->first;
        }
        perform(job);
        free(job->snapshot);
        free(job);
    }
}

__attribute__((destructor)) static void count_what_is_left(void) {
    int counts[KINDS] = {0};
    for (object *left = objects; left != NULL; left = left->next) {
        counts[left->kind]++;
    }
    char text[200] = "left:";
    for (int i = 0; i < FUNCTION; i++) {
        snprintf(text + strlen(text), sizeof text - strlen(text), " %d %s", counts[i], KIND_NAMES[i]);
    }
    note("%s %d contexts", text, retained);
}

API int cuInit(unsigned flags) {
    BEGIN(cuInit)
    initialised = setting("CUDA_FAKE_DEVICES", 1) > 0;
    return flags != 0 ? INVALID_VALUE : initialised ? 0 : NO_DEVICE;
}

API int cuDriverGetVersion(int *version) {
    BEGIN(cuDriverGetVersion)
    *version = (int)setting("CUDA_FAKE_VERSION", 12020);
    return 0;
}

API int cuGetErrorName(int error, const char **name) {
    static const struct {
        int error;
        const char *name;
    } NAMES[] = {
        {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {NO_BINARY, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {UNSUPPORTED_PTX, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"},
        {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {803, "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"},
        {CAPTURE_INVALID, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) {
        if (NAMES[i].error == error) {
            *name = NAMES[i].name;
            return 0;
        }
    }
    return INVALID_VALUE;
}

API int cuDeviceGetCount(int *count) {
    BEGIN(cuDeviceGetCount)
    *count = (int)setting("CUDA_FAKE_DEVICES", 1);
    return initialised ? 0 : 3; /* CUDA_ERROR_NOT_INITIALIZED */
}

API int cuDeviceGet(int *device, int ordinal) {
    BEGIN(cuDeviceGet)
    *device = ordinal;
    return ordinal < setting("CUDA_FAKE_DEVICES", 1) ? 0 : 101;
}

API int cuDeviceGetName(char *name, int length, int device) {
    BEGIN(cuDeviceGetName)
    snprintf(name, (size_t)length, "Fake \"GPU\" %d", device);
    return 0;
}

API int cuDeviceGetAttribute(int *value, int attribute, int device) {
    BEGIN(cuDeviceGetAttribute)
    int capability = (int)setting("CUDA_FAKE_CAPABILITY", 87);
    (void)device;
    switch (attribute) {
    case 13:
        *value = 1300000;
        return 0;
    case 16:
        *value = 16;
        return 0;
    case 36:
        *value = 3200000;
        return 0;
    case 75:
        *value = capability / 10;
        return 0;
    case 76:
        *value = capability % 10;
        return 0;
    default:
        return INVALID_VALUE; /* among them the width of the memory's bus: unknown */
    }
}

API int cuDeviceTotalMem_v2(size_t *bytes, int device) {
    BEGIN(cuDeviceTotalMem_v2)
    (void)device;
    *bytes = (size_t)setting("CUDA_FAKE_MEMORY", 1 << 30);
    return 0;
}

API int cuDevicePrimaryCtxRetain(void **context, int device) {
    BEGIN(cuDevicePrimaryCtxRetain)
    (void)device;
    retained++;
    *context = &retained;
    return 0;
}

API int cuDevicePrimaryCtxRelease(int device) {
    BEGIN(cuDevicePrimaryCtxRelease)
    (void)device;
    return retained-- > 0 ? 0 : INVALID_CONTEXT;
}

API int cuCtxPushCurrent_v2(void *context) {
    BEGIN(cuCtxPushCurrent_v2)
    depth++;
    return context == &retained ? 0 : INVALID_CONTEXT;
}

API int cuCtxPopCurrent_v2(void **context) {
    BEGIN(cuCtxPopCurrent_v2)
    *context = &retained;
    return depth-- > 0 ? 0 : INVALID_CONTEXT;
}

/* PTX from its first directive on: NVRTC writes comments before it. */
static const char *without_comments(const char *text) {
    for (;;) {
        text += strspn(text, " \t\r\n");
        if (strncmp(text, "//", 2) != 0) {
            return text;
        }
        text += strcspn(text, "\n");
    }
}

static int load(void **module, const char *image, char *log, size_t log_bytes) {
    const char *refused = getenv("CUDA_FAKE_REFUSE");
    refused = refused == NULL ? "" : refused;
    int is_cubin = memcmp(image, "\177ELF", 4) == 0;
    note(is_cubin ? "cubin" : "ptx");
    if (is_cubin && strstr(refused, "cubin") != NULL) {
        return NO_BINARY;
    }
    const char *ptx = is_cubin ? "" : without_comments(image);
    if (!is_cubin && (strstr(refused, "ptx") != NULL || strncmp(ptx, ".version ", 9) != 0)) {
        const char *version = strncmp(ptx, ".version ", 9) == 0 ? ptx + 9 : "?";
        snprintf(log, log_bytes, "ptxas fatal   : Unsupported .version %.3s; current version is '6.5'\nmore", version);
        return UNSUPPORTED_PTX;
    }
    *module = new_object(MODULE);
    return 0;
}

API int cuModuleLoadData(void **module, const void *image) {
    BEGIN_IN_CONTEXT(cuModuleLoadData)
    char log[1];
    return load(module, image, log, sizeof log);
}

API int cuModuleLoadDataEx(void **module, const void *image, unsigned count, int *options, void **values) {
    BEGIN_IN_CONTEXT(cuModuleLoadDataEx)
    char none[1], *log = none;
    size_t bytes = sizeof none;
    for (unsigned i = 0; i < count; i++) {
        log = options[i] == 5 ? values[i] : log;
        bytes = options[i] == 6 ? (size_t)(uintptr_t)values[i] : bytes;
    }
    return load(module, image, log, bytes);
}

API int cuModuleUnload(void *module) {
    BEGIN_IN_CONTEXT(cuModuleUnload)
    object *found = known(module, MODULE);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    for (object *one = objects, *next; one != NULL; one = next) {
        next = one->next;
        if (one->kind == FUNCTION && one->module == found) {
            forget(one);
        }
    }
    forget(found);
    return 0;
}

API int cuModuleGetFunction(void **handle, void *module, const char *name) {
    BEGIN_IN_CONTEXT(cuModuleGetFunction)
    static void *library;
    if (library == NULL && getenv("CUDA_FAKE_KERNELS") != NULL) {
        library = dlopen(getenv("CUDA_FAKE_KERNELS"), RTLD_NOW | RTLD_LOCAL);
        if (library == NULL) {
            fprintf(stderr, "fake driver: %s\n", dlerror());
        }
    }
    char count[300];
    snprintf(count, sizeof count, "%s_parameters", name);
    void *code = library == NULL ? NULL : dlsym(library, name);
    const int32_t *parameters = library == NULL ? NULL : dlsym(library, count);
    if (known(module, MODULE) == NULL || code == NULL || parameters == NULL || *parameters > MOST_PARAMETERS) {
        return NOT_FOUND;
    }
    object *made = new_object(FUNCTION);
    made->module = module;
    snprintf(made->function.name, sizeof made->function.name, "%s", name);
    made->function.code = code;
    made->function.parameters = *parameters;
    *handle = made;
    return 0;
}

API int cuMemAlloc_v2(uint64_t *memory, size_t bytes) {
    BEGIN_IN_CONTEXT(cuMemAlloc_v2)
    size_t taken = bytes;
    for (object *one = objects; one != NULL; one = one->next) {
        taken += one->kind == MEMORY ? one->bytes : 0;
    }
    if (bytes == 0) {
        return INVALID_VALUE;
    }
    if (taken > (size_t)setting("CUDA_FAKE_MEMORY", 1 << 30)) {
        return OUT_OF_MEMORY;
    }
    object *made = new_object(MEMORY);
    made->data = aligned_alloc(256, (bytes + 255) / 256 * 256);
    made->bytes = bytes;
    memset(made->data, 0xa5, bytes); /* nobody may count on zeros */
    *memory = (uint64_t)(uintptr_t)made->data + DEVICE;
    return 0;
}

API int cuMemFree_v2(uint64_t memory) {
    BEGIN_IN_CONTEXT(cuMemFree_v2)
    for (object *one = objects; one != NULL; one = one->next) {
        if (one->kind == MEMORY && (uint64_t)(uintptr_t)one->data + DEVICE == memory) {
            forget(one);
            return 0;
        }
    }
    return INVALID_VALUE;
}

/* Puts a copy into a stream or, while it is captured, into its graph. */
static int copy(void *stream, unsigned char *to, const void *from, size_t bytes, int at_once) {
    object *found = known(stream, STREAM);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    if (to == NULL || from == NULL) {
        return INVALID_VALUE;
    }
    work *added = add(found->capturing != NULL ? found->capturing : found, COPY);
    added->to = to;
    added->from = (unsigned char *)(uintptr_t)from;
    added->bytes = bytes;
    if (at_once) {
        added->snapshot = malloc(bytes);
        memcpy(added->snapshot, from, bytes);
    }
    return 0;
}

API int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t bytes, void *stream) {
    BEGIN_IN_CONTEXT(cuMemcpyHtoDAsync_v2)
    return (uint64_t)(uintptr_t)from >= DEVICE ? INVALID_VALUE : copy(stream, translate(to, bytes), from, bytes, 1);
}

API int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
    BEGIN_IN_CONTEXT(cuMemcpyDtoHAsync_v2)
    return (uint64_t)(uintptr_t)to >= DEVICE ? INVALID_VALUE : copy(stream, to, translate(from, bytes), bytes, 0);
}

API int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
    BEGIN_IN_CONTEXT(cuMemcpyDtoDAsync_v2)
    return copy(stream, translate(to, bytes), translate(from, bytes), bytes, 0);
}

API int cuStreamCreate(void **stream, unsigned flags) {
    BEGIN_IN_CONTEXT(cuStreamCreate)
    *stream = new_object(STREAM);
    return flags > 1 ? INVALID_VALUE : 0;
}

API int cuStreamDestroy_v2(void *stream) {
    BEGIN_IN_CONTEXT(cuStreamDestroy_v2)
    object *found = known(stream, STREAM);
    if (found == NULL || stream == NULL) {
        return INVALID_HANDLE;
    }
    finish(found, UINT64_MAX);
    if (found->capturing != NULL) {
        forget(found->capturing);
    }
    forget(found);
    return 0;
}

API int cuStreamSynchronize(void *stream) {
    BEGIN_IN_CONTEXT(cuStreamSynchronize)
    object *found = known(stream, STREAM);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    if (found->capturing != NULL) {
        return CAPTURE_INVALID;
    }
    finish(found, UINT64_MAX);
    return failure;
}

API int cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
    BEGIN_IN_CONTEXT(cuStreamWaitEvent)
    object *found = known(stream, STREAM), *awaited = known(event, EVENT);
    if (found == NULL || awaited == NULL || flags != 0) {
        return INVALID_HANDLE;
    }
    if (awaited->number != 0) {
        work *added = add(found, WAIT);
        added->other = awaited->stream;
        added->until = awaited->number;
    }
    return 0;
}

API int cuStreamBeginCapture_v2(void *stream, int mode) {
    BEGIN_IN_CONTEXT(cuStreamBeginCapture_v2)
    object *found = known(stream, STREAM);
    if (found == NULL || stream == NULL || found->capturing != NULL || mode < 0 || mode > 2) {
        return INVALID_VALUE;
    }
    found->capturing = new_object(GRAPH);
    return 0;
}

API int cuStreamEndCapture(void *stream, void **graph) {
    BEGIN_IN_CONTEXT(cuStreamEndCapture)
    object *found = known(stream, STREAM);
    if (found == NULL || found->capturing == NULL) {
        return INVALID_VALUE;
    }
    *graph = found->capturing;
    found->capturing = NULL;
    return 0;
}

API int cuEventCreate(void **event, unsigned flags) {
    BEGIN_IN_CONTEXT(cuEventCreate)
    *event = new_object(EVENT);
    (void)flags;
    return 0;
}

API int cuEventRecord(void *event, void *stream) {
    BEGIN_IN_CONTEXT(cuEventRecord)
    object *found = known(stream, STREAM), *recorded = known(event, EVENT);
    if (found == NULL || recorded == NULL) {
        return INVALID_HANDLE;
    }
    work *added = add(found, RECORD);
    added->event = recorded;
    recorded->stream = found;
    recorded->number = added->number;
    recorded->seconds = 0;
    return 0;
}

API int cuEventSynchronize(void *event) {
    BEGIN_IN_CONTEXT(cuEventSynchronize)
    object *found = known(event, EVENT);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    if (found->number != 0 && is_stream(found->stream)) {
        finish(found->stream, found->number);
    }
    return failure;
}

API int cuEventElapsedTime(float *milliseconds, void *start, void *end) {
    BEGIN_IN_CONTEXT(cuEventElapsedTime)
    object *from = known(start, EVENT), *to = known(end, EVENT);
    if (from == NULL || to == NULL) {
        return INVALID_HANDLE;
    }
    *milliseconds = (float)((to->seconds - from->seconds) * 1e3);
    return from->seconds == 0 || to->seconds == 0 ? NOT_READY : 0;
}

API int cuEventDestroy_v2(void *event) {
    BEGIN_IN_CONTEXT(cuEventDestroy_v2)
    object *found = known(event, EVENT);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    /* A real driver lets the work in the stream end first. */
    if (found->number != 0 && is_stream(found->stream)) {
        finish(found->stream, found->number);
    }
    forget(found);
    return 0;
}

API int cuLaunchKernel(void *kernel, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                       unsigned block_z, unsigned shared_bytes, void *stream, void **parameters, void **extra) {
    BEGIN_IN_CONTEXT(cuLaunchKernel)
    object *found = known(stream, STREAM), *code = known(kernel, FUNCTION);
    if (found == NULL || code == NULL) {
        return INVALID_HANDLE;
    }
    note("launch %s %ux%ux%u %ux%ux%u", code->function.name, grid_x, grid_y, grid_z, block_x, block_y, block_z);
    uint64_t threads = (uint64_t)block_x * block_y * block_z;
    if (grid_x == 0 || grid_y == 0 || grid_z == 0 || threads == 0 || threads > 1024 || shared_bytes != 0 || extra != NULL) {
        return INVALID_VALUE;
    }
    work *added = add(found->capturing != NULL ? found->capturing : found, LAUNCH);
    added->kernel = &code->function;
    for (int i = 0; i < code->function.parameters; i++) {
        uint64_t address;
        memcpy(&address, parameters[i], sizeof address);
        added->parameters[i] = translate(address, 1);
        if (added->parameters[i] == NULL) {
            failure = 700;
            return 0; /* as on a GPU: it shows later */
        }
    }
    return 0;
}

static void append(object *list, const work *first) {
    for (; first != NULL; first = first->next) {
        work *added = add(list, first->kind);
        uint64_t number = added->number;
        *added = *first;
        added->number = number;
        added->next = NULL;
    }
}

static int instantiate(void **executable, void *graph) {
    object *found = known(graph, GRAPH);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    object *made = new_object(EXECUTABLE);
    append(made, found->first);
    *executable = made;
    return 0;
}

#ifndef CUDA_10_2
API int cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
    BEGIN_IN_CONTEXT(cuGraphInstantiateWithFlags)
    return flags != 0 ? INVALID_VALUE : instantiate(executable, graph);
}
#endif

API int cuGraphInstantiate(void **executable, void *graph, void **node, char *log, size_t log_bytes) {
    BEGIN_IN_CONTEXT(cuGraphInstantiate)
    *node = NULL;
    return log != NULL || log_bytes != 0 ? INVALID_VALUE : instantiate(executable, graph);
}

API int cuGraphDestroy(void *graph) {
    BEGIN_IN_CONTEXT(cuGraphDestroy)
    object *found = known(graph, GRAPH);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    forget(found);
    return 0;
}

API int cuGraphLaunch(void *executable, void *stream) {
    BEGIN_IN_CONTEXT(cuGraphLaunch)
    object *found = known(executable, EXECUTABLE), *place = known(stream, STREAM);
    if (found == NULL || place == NULL || place->capturing != NULL) {
        return INVALID_HANDLE;
    }
    append(place, found->first);
    return 0;
}

API int cuGraphExecDestroy(void *executable) {
    BEGIN_IN_CONTEXT(cuGraphExecDestroy)
    object *found = known(executable, EXECUTABLE);
    if (found == NULL) {
        return INVALID_HANDLE;
    }
    forget(found);
    return 0;
}
