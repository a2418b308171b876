# cmake -D BUILD= -D OUT= -P this: installs a build into an empty folder and looks at what is there.
file(REMOVE_RECURSE ${OUT})
execute_process(COMMAND ${CMAKE_COMMAND} --install ${BUILD} --prefix ${OUT} OUTPUT_QUIET COMMAND_ERROR_IS_FATAL ANY)

# Every command that the program lists has its page.
execute_process(COMMAND ${OUT}/bin/quern help OUTPUT_VARIABLE help COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCH "Commands:\n(  [^\n]*\n)+" table "${help}")
string(REGEX MATCHALL "\n  [a-z]+" commands "${table}")
list(TRANSFORM commands STRIP)
list(LENGTH commands count)
if(count LESS 9)
  message(FATAL_ERROR "commands of `quern help`: ${commands}")
endif()
set(expected bin/quern share/man/man1/quern.1 share/bash-completion/completions/quern share/zsh/site-functions/_quern
  share/fish/vendor_completions.d/quern.fish share/doc/quern/LICENSE share/doc/quern/calibration_text.md share/doc/quern/examples/quern.service
  share/doc/quern/examples/quern.socket share/doc/quern/examples/nginx.conf)
foreach(command ${commands})
  list(APPEND expected share/man/man1/quern-${command}.1)
endforeach()
foreach(file ${expected})
  if(NOT EXISTS ${OUT}/${file})
    message(FATAL_ERROR "not installed: ${file}")
  endif()
  file(SIZE ${OUT}/${file} size)
  if(size LESS 200)
    message(FATAL_ERROR "installed with ${size} bytes only: ${file}")
  endif()
endforeach()

# What is installed works, and is of this program: options of the tables stand in page and completions.
execute_process(COMMAND ${OUT}/bin/quern help run OUTPUT_VARIABLE help COMMAND_ERROR_IS_FATAL ANY)
foreach(option max-tokens repeat-penalty check-tensors)
  foreach(file share/bash-completion/completions/quern share/zsh/site-functions/_quern
      share/fish/vendor_completions.d/quern.fish)
    file(READ ${OUT}/${file} text)
    if(NOT text MATCHES "${option}")
      message(FATAL_ERROR "${file} does not know --${option}")
    endif()
  endforeach()
  file(READ ${OUT}/share/man/man1/quern-run.1 page)
  string(REPLACE "\\-" "-" page "${page}")
  if(NOT page MATCHES "--${option}" OR NOT help MATCHES "--${option}")
    message(FATAL_ERROR "page or help of run does not know --${option}")
  endif()
endforeach()
find_program(BASH bash)
if(BASH)
  execute_process(COMMAND ${BASH} -n ${OUT}/share/bash-completion/completions/quern COMMAND_ERROR_IS_FATAL ANY)
  # What a user gets for "quern run m.gguf --top<TAB>" and "quern run m.gguf --kv <TAB>".
  execute_process(COMMAND ${BASH} -c "source '${OUT}/share/bash-completion/completions/quern'
COMP_WORDS=(quern run m.gguf --top); COMP_CWORD=3; _quern; echo \"\${COMPREPLY[*]}\"
COMP_WORDS=(quern run m.gguf --kv ''); COMP_CWORD=4; _quern; echo \"\${COMPREPLY[*]}\""
    OUTPUT_VARIABLE completed COMMAND_ERROR_IS_FATAL ANY)
  if(NOT completed STREQUAL "--top-k --top-p\nf16 f32 q8_0\n")
    message(FATAL_ERROR "bash completes to: ${completed}")
  endif()
endif()
# The same in the other shells, where they are there.
find_program(FISH fish)
if(FISH)
  execute_process(COMMAND ${FISH} --no-config -c "source '${OUT}/share/fish/vendor_completions.d/quern.fish'
complete -C 'quern conv' | string split -f1 \\t; complete -C 'quern run m.gguf --top' | string split -f1 \\t
complete -C 'quern run m.gguf --kv ' | string split -f1 \\t"
    OUTPUT_VARIABLE completed COMMAND_ERROR_IS_FATAL ANY)
  if(NOT completed STREQUAL "convert\n--top-k\n--top-p\nf16\nf32\nq8_0\n")
    message(FATAL_ERROR "fish completes to: ${completed}")
  endif()
endif()
find_program(ZSH zsh)
if(ZSH)
  # _describe and _arguments need a line being edited: what they are asked for is looked at instead.
  execute_process(COMMAND ${ZSH} -f -c "_describe() { print -l -- \${(P)2} }; _arguments() { print -l -- $@ }
words=(quern conv); CURRENT=2; source '${OUT}/share/zsh/site-functions/_quern'
words=(quern run m.gguf --kv ''); CURRENT=5; _quern"
    OUTPUT_VARIABLE completed COMMAND_ERROR_IS_FATAL ANY)
  foreach(part "convert:turn a checkpoint" "--top-p\\[" "--kv\\[[^\n]*:\\(f16 f32 q8_0\\)")
    if(NOT completed MATCHES "${part}")
      message(FATAL_ERROR "zsh completes from: ${completed}")
    endif()
  endforeach()
endif()
