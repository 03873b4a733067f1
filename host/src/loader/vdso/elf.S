// The vDSO as one ELF image: what a dynamic linker would read of any shared library, in a page of its own. The architecture's
// file brings the functions (`vdso_functions`, `vdso_trampoline`), their names (`vdso_symbols`) and numbers; everything here is System V ABI,
// "Object Files" and "Dynamic Linking", and the Linux Standard Base, "Symbol Versioning" and "Exception Frames".
//
// All names are hashed into one bucket: with a handful of them a chain is what every bucket would be.

.macro vdso_symbol name:req, function:req, info:req
    .int .Lvdso_name_\name - .Lvdso_strings
    .byte \info, 0
    .short 3                            // section .text
    .quad .Lvdso_\function - vdso_image
    .quad .Lvdso_\function\()_end - .Lvdso_\function
.endm

.macro vdso_string name:req, function:req, info:req
.Lvdso_name_\name:
    .asciz "\name"
.endm

.macro vdso_version name:req, function:req, info:req
    .short 2
.endm

.macro vdso_dynamic tag:req, value:req
    .quad \tag, \value
.endm

.macro vdso_section name:req, kind:req, flags:req, link:req, info:req, align:req, entry:req
    .int .Lvdso_name_of_\name - .Lvdso_section_names, \kind
    .quad \flags, .Lvdso_\name - vdso_image, .Lvdso_\name - vdso_image, .Lvdso_\name\()_end - .Lvdso_\name
    .int \link, \info
    .quad \align, \entry
.endm

.pushsection .rodata.vdso, "a"
.balign 64
.hidden vdso_image
.globl vdso_image
vdso_image:
    .byte 0x7f
    .ascii "ELF"
    .byte 2, 1, 1, 0                    // 64 bits, little endian, version 1, System V
    .zero 8
    .short 3, VDSO_MACHINE              // ET_DYN
    .int 1
    .quad 0, .Lvdso_segments - vdso_image, .Lvdso_sections - vdso_image
    .int 0
    .short 64, 56, 3, 64, 11, 10

.Lvdso_segments:
    .int 1, 5                           // PT_LOAD, readable and executable
    .quad 0, 0, 0, .Lvdso_end - vdso_image, .Lvdso_end - vdso_image, 4096
    .int 2, 4                           // PT_DYNAMIC, readable
    .quad .Lvdso_dynamic - vdso_image, .Lvdso_dynamic - vdso_image, .Lvdso_dynamic - vdso_image
    .quad .Lvdso_dynamic_end - .Lvdso_dynamic, .Lvdso_dynamic_end - .Lvdso_dynamic, 8
    .int 0x6474e550, 4                  // PT_GNU_EH_FRAME
    .quad .Lvdso_unwind - vdso_image, .Lvdso_unwind - vdso_image, .Lvdso_unwind - vdso_image
    .quad .Lvdso_unwind_end - .Lvdso_unwind, .Lvdso_unwind_end - .Lvdso_unwind, 4

.Lvdso_dynamic:
    vdso_dynamic 14, .Lvdso_soname - .Lvdso_strings
    vdso_dynamic 4, .Lvdso_hash - vdso_image
    vdso_dynamic 5, .Lvdso_strings - vdso_image
    vdso_dynamic 6, .Lvdso_symbols - vdso_image
    vdso_dynamic 10, .Lvdso_strings_end - .Lvdso_strings
    vdso_dynamic 11, 24
    vdso_dynamic 0x6ffffff0, .Lvdso_versions - vdso_image
    vdso_dynamic 0x6ffffffc, .Lvdso_definitions - vdso_image
    vdso_dynamic 0x6ffffffd, 2
    vdso_dynamic 0, 0
.Lvdso_dynamic_end:

.Lvdso_symbols:
    .zero 24
    vdso_symbols vdso_symbol
.Lvdso_symbols_end:

.Lvdso_hash:                            // one bucket: symbol 1, then 2, 3, ... 0
    .int 1, VDSO_SYMBOLS + 1, 1, 0
    .set .Lvdso_next, 2
    .rept VDSO_SYMBOLS - 1
    .int .Lvdso_next
    .set .Lvdso_next, .Lvdso_next + 1
    .endr
    .int 0
.Lvdso_hash_end:

.Lvdso_definitions:                     // of the library itself, then of the version that its functions have
    .short 1, 1, 1, 1
    .int 0x0deebfa1, 20, 28
    .int .Lvdso_soname - .Lvdso_strings, 0
    .short 1, 0, 2, 1
    .int VDSO_VERSION_HASH, 20, 0
    .int .Lvdso_version - .Lvdso_strings, 0
.Lvdso_definitions_end:

.Lvdso_versions:
    .short 0
    vdso_symbols vdso_version
.Lvdso_versions_end:

.Lvdso_strings:
    .byte 0
.Lvdso_soname:
    .asciz "linux-vdso.so.1"
.Lvdso_version:
    vdso_version_name
    vdso_symbols vdso_string
.Lvdso_strings_end:

.balign 4
.Lvdso_unwind:                          // .eh_frame_hdr, with its table of one
    .byte 1, 0x1b, 0x03, 0x3b
    .int .Lvdso_frames - .
    .int 1
    .int .Lvdso_text - .Lvdso_unwind, .Lvdso_frame - .Lvdso_unwind
.Lvdso_unwind_end:

.balign 8
.Lvdso_frames:                          // .eh_frame: none of the functions touches the stack
    .int .Lvdso_frame - .Lvdso_frames - 4, 0
    .byte 1
    .asciz "zR"
    vdso_frame_state
    .balign 4
.Lvdso_frame:
    .int .Lvdso_frame_end - .Lvdso_frame - 4, .Lvdso_frame + 4 - .Lvdso_frames
    .int .Lvdso_text - ., .Lvdso_functions_end - .Lvdso_text
    .byte 0
    .balign 4
.Lvdso_frame_end:
    .int 0
.Lvdso_frames_end:

.balign 64
.Lvdso_text:
    vdso_functions
.Lvdso_functions_end:
    vdso_trampoline
.Lvdso_text_end:

.Lvdso_section_names:
    .byte 0
.Lvdso_name_of_symbols:
    .asciz ".dynsym"
.Lvdso_name_of_strings:
    .asciz ".dynstr"
.Lvdso_name_of_text:
    .asciz ".text"
.Lvdso_name_of_dynamic:
    .asciz ".dynamic"
.Lvdso_name_of_hash:
    .asciz ".hash"
.Lvdso_name_of_versions:
    .asciz ".gnu.version"
.Lvdso_name_of_definitions:
    .asciz ".gnu.version_d"
.Lvdso_name_of_unwind:
    .asciz ".eh_frame_hdr"
.Lvdso_name_of_frames:
    .asciz ".eh_frame"
.Lvdso_name_of_section_names:
    .asciz ".shstrtab"
.Lvdso_section_names_end:

.balign 8
.Lvdso_sections:                        // for debuggers and readelf: nothing that runs reads them
    .zero 64
    vdso_section symbols, 11, 2, 2, 1, 8, 24
    vdso_section strings, 3, 2, 0, 0, 1, 0
    vdso_section text, 1, 6, 0, 0, 64, 0
    vdso_section dynamic, 6, 2, 2, 0, 8, 16
    vdso_section hash, 5, 2, 1, 0, 8, 4
    vdso_section versions, 0x6fffffff, 2, 1, 0, 2, 2
    vdso_section definitions, 0x6ffffffd, 2, 2, 2, 4, 0
    vdso_section unwind, 1, 2, 0, 0, 4, 0
    vdso_section frames, 1, 2, 0, 0, 8, 0
    vdso_section section_names, 3, 0, 0, 0, 1, 0
.Lvdso_end:
.hidden vdso_image_end
.globl vdso_image_end
vdso_image_end:
.popsection
