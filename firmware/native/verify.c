/* verify.c: a native module for EdDSA signatures (Curve25519 and BLAKE2b) by way of Monocypher.
 *
 * monocypher.c is Loup Vaillant's, fetched by host_tools/outpost/toolchain/monocypher.py; of it
 * only what crypto_eddsa_check() needs ends up in the module. The unrolled BLAKE2b is three times
 * the size, for a check that is made once a package.
 */
#include "abi.h"

#define BLAKE2_NO_UNROLLING 1
#include "monocypher.c"

enum { SIGNATURE = 64, KEY = 32 };

/* check(signature, public_key, message) is 1 if the key's owner signed the message, and else 0. */
static mp_obj_t check(mp_obj_t signature, mp_obj_t public_key, mp_obj_t message)
{
    mp_buffer_t by, of, what;
    int good = mp_get_buffer(signature, &by, MP_READ) && by.length == SIGNATURE &&
               mp_get_buffer(public_key, &of, MP_READ) && of.length == KEY &&
               mp_get_buffer(message, &what, MP_READ) &&
               crypto_eddsa_check(by.start, of.start, what.start, what.length) == 0;
    return MP_SMALL_INT(good);
}

static const mp_fun_builtin_t check_function = { &mp_type_fun_builtin_3, check };

#define EXPORTS(EXPORT) EXPORT(check, &check_function)

MP_MODULE(EXPORTS)
