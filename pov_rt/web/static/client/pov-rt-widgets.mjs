export{ActivityNotification,PovError,TeamActivity,connect,createFeed}from"./pov-rt-widgets-FZZYIIT7.mjs";
