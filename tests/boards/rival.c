/* rival.c: the same forest the way MicroPython's own tools make a native module. */
#include "py/dynruntime.h"

#include "model.h"

#include "model.c"

static mp_obj_t predict(mp_obj_t features_in, mp_obj_t votes_in)
{
    mp_buffer_info_t features, votes;
    mp_get_buffer_raise(features_in, &features, MP_BUFFER_READ);
    mp_get_buffer_raise(votes_in, &votes, MP_BUFFER_RW);
    return MP_OBJ_NEW_SMALL_INT(outpost_predict(features.buf, votes.buf));
}
static MP_DEFINE_CONST_FUN_OBJ_2(predict_obj, predict);

mp_obj_t mpy_init(mp_obj_fun_bc_t *self, size_t n_args, size_t n_kw, mp_obj_t *args)
{
    MP_DYNRUNTIME_INIT_ENTRY
    mp_store_global(MP_QSTR_predict, MP_OBJ_FROM_PTR(&predict_obj));
    MP_DYNRUNTIME_INIT_EXIT
}
