/* module.c: a model as a MicroPython module: features(), predict(), classify() and its shape.
 * The whole program is this one unit: everything is static and what a model doesn't use vanishes.
 */
#ifndef OUTPOST_USER_MODULE /* which brings its own: usermodule.h */
#include "abi.h"

#include "model.h"

#include "features.c"
#include "model.c"
#endif

#define OUTPOST_ABI 1

#ifndef OUTPOST_STATE
#define OUTPOST_STATE
#endif

#define WINDOW_LENGTH (OUTPOST_WINDOW * OUTPOST_CHANNELS)

#define TEXT_(macro) #macro
#define TEXT(macro) TEXT_(macro)

#ifndef REFUSE
/* ValueError is fetched the way Python does it: a caller's own global of that name can't mislead
 * us, and the message is a copy, so the exception may outlive the module. */
static void __attribute__((noreturn)) refuse(const char *message, size_t length)
{
    mp_obj_t builtins = mp_import(MP_QSTR_builtins, mp_none, MP_SMALL_INT(0));
    mp_obj_t error = mp_load_attr(builtins, MP_QSTR_ValueError);
    mp_obj_t text = mp_new_str(message, length);
    mp_raise(mp_call(error, 1, &text));
    for (;;) {
    }
}

#define REFUSE(message) refuse(message, sizeof message - 1)
#endif

/* The types of array and bytearray, once they are known. Not static in a .mpy file, because code
 * that doesn't know where it is reaches a variable only by an address that the loader gives. */
OUTPOST_STATE struct outpost_known {
    const mp_type_t *shorts, *bytes;
} outpost_known;

/* What nearly every caller passes, told in a tenth of the time that mp_get_buffer takes: an array
 * of `count` items whose type has been seen before. */
static inline int familiar(mp_obj_t object, const mp_type_t *type, uint8_t typecode, size_t count)
{
    const mp_array_t *array = object;
    return ((uintptr_t)object & 3) == 0 && array->type == type &&
           (uint8_t)array->typecode == typecode && array->count == count;
}

/* The memory behind a Python object, or NULL unless it is `count` items of `typecode` or as many
 * plain bytes, and may be accessed so. An odd address would be a hard fault on a Cortex-M0+.
 *
 * A type is taken note of if its object lies in memory just as MicroPython describes it: then it
 * is that of array or bytearray. (A memoryview marks its typecode, and strings have another.) */
static void *memory(mp_obj_t object, size_t access, size_t count, int typecode)
{
    size_t length = typecode == 'h' ? count * 2 : count;
    mp_buffer_t buffer;
    if (!mp_get_buffer(object, &buffer, access) || buffer.length != length ||
        (typecode == 'h' && ((uintptr_t)buffer.start & 1) != 0)) {
        return NULL;
    }
    if (buffer.typecode == typecode) {
        const mp_array_t *array = object;
        if (((uintptr_t)object & 3) == 0 && (uint8_t)array->typecode == typecode &&
            array->count == count && array->start == buffer.start) {
            *(typecode == 'h' ? &outpost_known.shorts : &outpost_known.bytes) = array->type;
        }
    } else if (buffer.typecode != MP_BYTEARRAY &&
               (buffer.typecode != 'B' || mp_type_of(object) == mp_type_str)) {
        return NULL;
    }
    return buffer.start;
}

static const int16_t *window_of(mp_obj_t object)
{
    const int16_t *window = memory(object, MP_READ, WINDOW_LENGTH, 'h');
    if (window == NULL) {
        REFUSE("window: array('h') of " TEXT(OUTPOST_WINDOW) "*" TEXT(OUTPOST_CHANNELS));
    }
    return window;
}

static int16_t *__attribute__((noinline)) other_features(mp_obj_t object, size_t access)
{
    int16_t *features = memory(object, access, OUTPOST_FEATURES, 'h');
    if (features == NULL) {
        REFUSE("features: array('h') of " TEXT(OUTPOST_FEATURES));
    }
    return features;
}

static inline int16_t *features_of(const struct outpost_known *known, mp_obj_t object,
                                   size_t access)
{
    return familiar(object, known->shorts, 'h', OUTPOST_FEATURES)
               ? ((const mp_array_t *)object)->start
               : other_features(object, access);
}

static uint8_t *__attribute__((noinline)) other_votes(mp_obj_t object)
{
    uint8_t *votes = memory(object, MP_READ_WRITE, OUTPOST_CLASSES, MP_BYTEARRAY);
    if (votes == NULL) {
        REFUSE("votes: bytearray of " TEXT(OUTPOST_CLASSES));
    }
    return votes;
}

static inline uint8_t *votes_of(const struct outpost_known *known, mp_obj_t object)
{
    if (OUTPOST_CLASSES == 0) { /* a regression: whatever is given */
        return NULL;
    }
    return familiar(object, known->bytes, MP_BYTEARRAY, OUTPOST_CLASSES)
               ? ((const mp_array_t *)object)->start
               : other_votes(object);
}

static mp_obj_t module_features(mp_obj_t window, mp_obj_t features)
{
    const int16_t *in = window_of(window);
    outpost_features(in, features_of(&outpost_known, features, MP_READ_WRITE));
    return mp_none;
}

static mp_obj_t module_predict(mp_obj_t features, mp_obj_t votes)
{
    const struct outpost_known *known = &outpost_known;
    __asm__("" : "+r"(known)); /* found once, and not once for each type */
    const int16_t *in = features_of(known, features, MP_READ);
    return MP_SMALL_INT(outpost_predict(in, votes_of(known, votes)));
}

static mp_obj_t module_classify(mp_obj_t window, mp_obj_t features, mp_obj_t votes)
{
    const int16_t *in = window_of(window);
    int16_t *between = features_of(&outpost_known, features, MP_READ_WRITE);
    uint8_t *out = votes_of(&outpost_known, votes);
    outpost_features(in, between);
    return MP_SMALL_INT(outpost_predict(between, out));
}

static const mp_fun_builtin_t features_function = { &mp_type_fun_builtin_2, module_features };
static const mp_fun_builtin_t predict_function = { &mp_type_fun_builtin_2, module_predict };
static const mp_fun_builtin_t classify_function = { &mp_type_fun_builtin_3, module_classify };

#define EXPORTS(EXPORT) \
    EXPORT(features, &features_function) \
    EXPORT(predict, &predict_function) \
    EXPORT(classify, &classify_function) \
    EXPORT(ABI, MP_SMALL_INT(OUTPOST_ABI)) \
    EXPORT(VERSION, MP_SMALL_INT(OUTPOST_VERSION)) \
    EXPORT(WINDOW, MP_SMALL_INT(OUTPOST_WINDOW)) \
    EXPORT(CHANNELS, MP_SMALL_INT(OUTPOST_CHANNELS)) \
    EXPORT(FEATURES, MP_SMALL_INT(OUTPOST_FEATURES)) \
    EXPORT(CLASSES, MP_SMALL_INT(OUTPOST_CLASSES)) \
    EXPORT(TREES, MP_SMALL_INT(OUTPOST_TREES))

#ifdef OUTPOST_USER_MODULE

#define ENTRY(name, value) { MP_ROM_QSTR(MP_QSTR_##name), value },

static const mp_rom_map_elem_t outpost_entries[] = {
    { MP_ROM_QSTR(MP_QSTR___name__), MP_ROM_QSTR(OUTPOST_USER_MODULE) },
    EXPORTS(ENTRY)
};
static MP_DEFINE_CONST_DICT(outpost_globals, outpost_entries);

#else

MP_MODULE(EXPORTS)

#endif
